//! The listeners of a process, and when each begins and ends to accept.
//!
//! [`Listening`] runs one of Pingora's listening services on a socket that it is given when the process is ready
//! to serve; [`Listeners`] is the other end of it: it binds or adopts the sockets, starts and closes the
//! services, and offers the sockets to a successor. Each service has a table of descriptors of its own: Pingora
//! looks one up by the text of its address, and two listeners may both say port 0.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use futures_util::future::{join_all, poll_fn, select_all};
use pingora_core::{
    apps::ServerApp,
    listeners::ListenerConfig,
    server::{Fds, ListenFds, ShutdownWatch},
    services::{Service, listening},
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout_at},
};

use super::socket::Socket;
use crate::{config::Listen, telemetry::metrics::METRICS};

/// The longest wait for Pingora to accept what waits in the kernel, and to end its loops.
const CLOSING: Duration = Duration::from_secs(1);
/// The longest wait for all services to accept; a predecessor waits longer to hear of it.
const STARTING: Duration = Duration::from_secs(2);

/// How long a listener accepts when the process is asked to end. A successor takes it over in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Only until then.
    Asked,
    /// Until the process is gone: operators want to see it end.
    Gone,
}

/// All listeners of the process.
#[derive(Default)]
pub struct Listeners(Vec<Listener>);

struct Listener {
    role: &'static str,
    listen: Listen,
    until: Until,
    /// From binding to closing.
    socket: Option<Socket>,
    /// Gone once the service was started.
    start: Option<oneshot::Sender<OwnedFd>>,
    accepts: oneshot::Receiver<()>,
    close: watch::Sender<bool>,
    /// Its sender is dropped when the service has ended, however.
    ended: watch::Receiver<()>,
}

/// A Pingora listening service that accepts from when to when [`Listeners`] says.
pub struct Listening<A> {
    service: listening::Service<A>,
    key: String,
    start: Option<oneshot::Receiver<OwnedFd>>,
    accepts: Option<oneshot::Sender<()>>,
    closing: ShutdownWatch,
    ended: Option<watch::Sender<()>>,
}

/// The endpoint of a service that listens there.
pub fn endpoint(listen: &Listen) -> ListenerConfig {
    match listen {
        Listen::Tcp(_) => ListenerConfig::tcp(key(listen)),
        Listen::Unix(_) => ListenerConfig::uds(key(listen)),
    }
}

/// What Pingora looks a descriptor up by.
fn key(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => path.to_string_lossy().into_owned(),
    }
}

impl Listeners {
    /// Adds a listener; the service has its [`endpoint`] already, and what is returned is to be given to Pingora's
    /// server. The role is the listener's name in logs and towards a successor.
    pub fn add<A>(
        &mut self,
        role: &'static str,
        listen: &Listen,
        until: Until,
        service: listening::Service<A>,
    ) -> Listening<A> {
        let key = key(listen);
        let (start, started) = oneshot::channel();
        let (accept, accepts) = oneshot::channel();
        let (close, closing) = watch::channel(false);
        let (end, ended) = watch::channel(());
        let listen = listen.clone();
        self.0.push(Listener {
            role,
            listen,
            until,
            socket: None,
            start: Some(start),
            accepts,
            close,
            ended,
        });
        Listening { service, key, start: Some(started), accepts: Some(accept), closing, ended: Some(end) }
    }

    /// Binds what has no socket yet, as far as `which` says.
    pub fn bind(&mut self, which: impl Fn(&Listen) -> bool) -> anyhow::Result<()> {
        for listener in self.0.iter_mut().filter(|listener| listener.socket.is_none()) {
            if which(&listener.listen) {
                listener.socket = Some(Socket::bind(&listener.listen)?);
            }
        }
        Ok(())
    }

    /// Takes a predecessor's sockets. Those that no listener asks for are closed.
    pub fn adopt(&mut self, mut offered: HashMap<String, OwnedFd>) -> anyhow::Result<()> {
        for listener in &mut self.0 {
            let name = listener.name();
            let Some(fd) = offered.remove(&name) else { continue };
            match &listener.listen {
                // Nobody could connect to it.
                Listen::Unix(path) if !path.exists() => {
                    log::warn!("{name}: the socket's file is gone: bound anew");
                }
                listen => {
                    let socket = Socket::adopt(listen, fd)
                        .with_context(|| format!("the predecessor's socket {name:?} cannot be used"))?;
                    listener.socket = Some(socket);
                }
            }
        }
        for name in offered.keys() {
            log::info!("not taken over, as the configuration has no such listener: {name:?}");
        }
        Ok(())
    }

    /// All sockets by name, for a successor.
    pub fn offer(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let sockets = self.0.iter().filter_map(|listener| Some((listener.name(), listener.socket.as_ref()?)));
        sockets.map(|(name, socket)| (name, socket.as_fd())).collect()
    }

    /// Lets all services accept, or none if one of them has no socket. Returns when they do.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let sockets = self.0.iter().map(Listener::duplicate).collect::<anyhow::Result<Vec<_>>>()?;
        for (listener, socket) in self.0.iter_mut().zip(sockets) {
            // What is not received shows below.
            listener.start.take().map(|start| start.send(socket));
        }
        let deadline = Instant::now() + STARTING;
        for listener in &mut self.0 {
            let role = listener.role;
            match timeout_at(deadline, &mut listener.accepts).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => anyhow::bail!("the {role} ended when it should accept"),
                Err(_) => anyhow::bail!("the {role} does not accept after {STARTING:?}"),
            }
        }
        for listener in &self.0 {
            let address = listener.socket.as_ref().map(|socket| socket.address.as_str());
            log::info!("{} listening on {}", listener.role, address.unwrap_or_default());
        }
        Ok(())
    }

    /// Waits until one of the services has ended although nobody closed it, and names it.
    pub async fn broken(&mut self) -> &'static str {
        let running = self.0.iter_mut().filter(|listener| !*listener.close.borrow());
        let ends: Vec<_> = running.map(|listener| (listener.role, &mut listener.ended)).collect();
        if ends.is_empty() {
            return std::future::pending().await;
        }
        let ends =
            ends.into_iter().map(|(role, ended)| Box::pin(async move { (role, ended.changed().await).0 }));
        select_all(ends).await.0
    }

    /// Waits for a moment in which no connection waits to be accepted by those that [`Listeners::close`] would
    /// close: the kernel resets what waits when a socket is closed.
    pub async fn accept_queued(&self, until: Option<Until>) {
        let closing = || self.0.iter().filter(|listener| listener.ends(until));
        let queued = || closing().filter_map(|listener| listener.socket.as_ref()).any(Socket::has_queued);
        let deadline = Instant::now() + CLOSING;
        while queued() && Instant::now() < deadline {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends accepting: for the listeners of this kind, or all. Returns when the sockets are closed and all
    /// accepted connections are in the hands of their services.
    pub async fn close(&mut self, until: Option<Until>) {
        let closing = self.0.iter_mut().filter(|listener| listener.ends(until));
        join_all(closing.map(async |listener| {
            // One that was not started has nothing more to wait for.
            listener.start = None;
            listener.close.send_replace(true);
            if tokio::time::timeout(CLOSING, listener.ended.changed()).await.is_err() {
                log::error!("the {} still accepts {CLOSING:?} after it was told to end", listener.role);
            }
            listener.socket = None;
        }))
        .await;
    }
}

impl Listener {
    /// The same in a successor that is to listen at the same address for the same purpose.
    fn name(&self) -> String {
        format!("{} {}", self.role, self.listen)
    }

    /// Its socket, for a service that waits for it.
    fn duplicate(&self) -> anyhow::Result<OwnedFd> {
        let role = self.role;
        let waits = self.start.as_ref().is_some_and(|start| !start.is_closed());
        anyhow::ensure!(waits, "the {role} does not run");
        let socket =
            self.socket.as_ref().with_context(|| format!("the {role} has no socket to listen on"))?;
        socket.duplicate().with_context(|| format!("the {role}'s socket cannot be duplicated"))
    }

    fn ends(&self, until: Option<Until>) -> bool {
        !*self.close.borrow() && until.is_none_or(|until| self.until == until)
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Listening<A> {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, listeners_per_fd: usize) {
        // Dropped at the end of this, also by a panic.
        let _ended = self.ended.take();
        let Some(start) = self.start.take() else { return };
        // An error means that the process ends before it served.
        let Ok(socket) = start.await else { return };
        METRICS.watch_tasks(self.service.name(), Handle::current());
        let mut table = Fds::new();
        table.add(self.key.clone(), socket.into_raw_fd());
        let table = ListenFds::new(table.into());
        let being_read = Arc::downgrade(&table);
        let mut accepts = self.accepts.take();
        let mut serving =
            pin!(self.service.start_service(Some(table), self.closing.clone(), listeners_per_fd));
        // Pingora panics if it cannot use what it finds in the table. Once it has let go of that and goes on, its
        // loops accept.
        poll_fn(|context| {
            let polled = serving.as_mut().poll(context);
            if polled.is_pending() && being_read.strong_count() == 0 {
                accepts.take().map(|accepts| accepts.send(()));
            }
            polled
        })
        .await;
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }
}

#[cfg(test)]
mod tests {
    use pingora_core::protocols::Stream;

    use super::*;

    /// Closes every connection.
    struct Deaf;

    #[async_trait]
    impl ServerApp for Deaf {
        async fn process_new(self: &Arc<Self>, _: Stream, _: &ShutdownWatch) -> Option<Stream> {
            None
        }
    }

    #[tokio::test]
    async fn either_all_services_are_given_their_sockets_or_none() {
        let (mut listeners, [mut gateway, _technical]) = two("127.0.0.1:0");
        listeners.bind(|_| true).unwrap();
        listeners.0[1].socket = None;
        let error = listeners.start().await.unwrap_err().to_string();
        assert_eq!(error, "the technical has no socket to listen on");
        assert!(gateway.start.as_mut().unwrap().try_recv().is_err());
    }

    #[tokio::test]
    async fn a_start_ends_well_only_if_every_service_accepts() {
        for (endpoint, good) in [("127.0.0.1:0", true), ("nowhere", false)] {
            let mut listeners = Listeners::default();
            let listen = Listen::parse("127.0.0.1:0").unwrap();
            for (role, address) in [("gateway", "127.0.0.1:0"), ("technical", endpoint)] {
                let mut service = listening::Service::new(role.to_owned(), Deaf);
                service.add_tcp(address);
                let mut service = listeners.add(role, &listen, Until::Asked, service);
                let (_, shutdown) = watch::channel(false);
                tokio::spawn(async move { service.start_service(None, shutdown, 1).await });
            }
            listeners.bind(|_| true).unwrap();
            match listeners.start().await {
                Ok(()) => assert!(good),
                Err(error) => {
                    assert!(!good, "{error}");
                    assert_eq!(error.to_string(), "the technical ended when it should accept");
                }
            }
            listeners.close(None).await;
        }
    }

    fn two(listen: &str) -> (Listeners, [Listening<()>; 2]) {
        let listen = Listen::parse(listen).unwrap();
        let mut listeners = Listeners::default();
        let mut add =
            |role, until| listeners.add(role, &listen, until, listening::Service::new(role.to_owned(), ()));
        let services = [add("gateway", Until::Asked), add("technical", Until::Gone)];
        (listeners, services)
    }

    fn addresses(listeners: &Listeners) -> Vec<&str> {
        listeners.0.iter().map(|listener| listener.socket.as_ref().unwrap().address.as_str()).collect()
    }

    fn offered(listeners: &Listeners) -> HashMap<String, OwnedFd> {
        let owned = |(name, fd): (String, BorrowedFd)| (name, fd.try_clone_to_owned().unwrap());
        listeners.offer().into_iter().map(owned).collect()
    }

    #[test]
    fn a_successor_gets_each_socket_for_its_purpose() {
        let (mut old, _services) = two("127.0.0.1:0");
        old.bind(|_| true).unwrap();
        let (mut new, _services) = two("127.0.0.1:0");
        new.adopt(offered(&old)).unwrap();
        assert_eq!(addresses(&new), addresses(&old));
        let (mut elsewhere, _services) = two("127.0.0.2:0");
        elsewhere.adopt(offered(&old)).unwrap();
        assert!(elsewhere.offer().is_empty());
        let mut swapped = offered(&old);
        swapped.insert("gateway 127.0.0.2:0".to_owned(), swapped["gateway 127.0.0.1:0"].try_clone().unwrap());
        assert!(elsewhere.adopt(swapped).is_err());
    }

    #[tokio::test]
    async fn what_operators_watch_stays_open_while_the_process_ends() {
        let (mut listeners, [gateway, technical]) = two("127.0.0.1:0");
        listeners.bind(|_| true).unwrap();
        let closed = [gateway.closing.clone(), technical.closing.clone()];
        drop(gateway);
        listeners.close(Some(Until::Asked)).await;
        assert_eq!(closed.each_ref().map(|closed| *closed.borrow()), [true, false]);
        assert_eq!(listeners.offer().len(), 1);
        drop(technical);
        listeners.close(None).await;
        assert!(listeners.offer().is_empty() && *closed[1].borrow());
    }

    #[tokio::test]
    async fn a_service_that_ends_by_itself_is_noticed() {
        let (mut listeners, [_gateway, technical]) = two("127.0.0.1:0");
        drop(technical);
        assert_eq!(listeners.broken().await, "technical");
    }
}
