//! A hand-over in which not all goes as it should: whoever is at the other end of the socket, one of the two serves, and
//! nothing is lost.

use std::{io::Write, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::{fixture::*, takeover::quiet};

/// A process that waits where a successor would.
struct Impostor(UnixListener);

impl Impostor {
    fn of(gateway: &Gateway) -> Self {
        Impostor(UnixListener::bind(gateway.log_file("upgrade.sock")).unwrap())
    }

    /// The gateway's connection, once the offer has been read. The descriptors are thrown away.
    async fn meet(&self) -> UnixStream {
        let (mut stream, _) = soon("the gateway to come", self.0.accept()).await.unwrap();
        let mut offer = Vec::new();
        while offer.last() != Some(&b'\n') {
            assert!(soon("an offer", stream.read_buf(&mut offer)).await.unwrap() > 0);
        }
        let offer: Value = serde_json::from_slice(&offer).unwrap();
        assert_eq!(offer["sockets"][0], "gateway 127.0.0.1:0");
        stream
    }

    /// The same, after it has said that it is ready and has been told that the sockets are its own.
    async fn that_is_given_the_sockets(&self) -> UnixStream {
        let mut stream = self.meet().await;
        stream.write_all(b"ready\n").await.unwrap();
        let mut yours = [0; 6];
        soon("the sockets", stream.read_exact(&mut yours)).await.unwrap();
        assert_eq!(&yours, b"yours\n");
        stream
    }
}

/// A gateway serves after a try that failed, and is taken over from once its file is `good` again.
async fn assert_goes_on_until_another_comes(mut gateway: Gateway, good: &str) {
    assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
    std::fs::write(gateway.log_file("akubra.yaml"), good).unwrap();
    let mut successor = gateway.hand_over().await;
    gateway.ended().await;
    successor.stop_in_sync().await;
}

#[test]
fn a_successor_with_a_bad_configuration_harms_nothing() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let file = gateway.log_file("akubra.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"Lisen: x\n").unwrap();
        let output = akubra(&["-u", "-c", file.to_str().unwrap()]).await;
        assert_eq!(output.status.code(), Some(20), "{output:?}");
        assert_goes_on_until_another_comes(gateway, &good).await;
    });
}

#[test]
fn a_successor_that_cannot_listen_says_why_and_the_gateway_goes_on() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let file = gateway.log_file("akubra.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        let taken = a.address().to_string();
        std::fs::write(&file, good.replace("127.0.0.1:0", &taken)).unwrap();
        let mut successor = gateway.successor().await;
        gateway.signal("QUIT");
        let why = gateway.wait_for_log("not handed over").await;
        assert!(why.contains(&format!("it failed: cannot listen on {taken}")), "{why}");
        assert_eq!(successor.exit_status().await.code(), Some(1));
        assert_goes_on_until_another_comes(gateway, &good).await;
    });
}

#[test]
fn a_successor_that_dies_before_it_is_ready_costs_nothing() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = quiet(Gateway::over(&[&a, &b])).start().await;
        let load = Load::begin(gateway.address(), 10);
        let impostor = Impostor::of(&gateway);
        // It dies with the sockets, talks nonsense, or says that it failed.
        for last_words in ["", "GET / HTTP/1.1\r\n\r\n", "failed on\u{1b}purpose\n"] {
            gateway.signal("QUIT");
            let mut stream = impostor.meet().await;
            stream.write_all(last_words.as_bytes()).await.unwrap();
            drop(stream);
            let tries = ["it has gone", "it speaks another language", "it failed: onpurpose"];
            let said = tries[usize::from(!last_words.is_empty()) + usize::from(last_words.starts_with('f'))];
            gateway.wait_for_log(said).await;
        }
        drop(impostor);
        std::fs::remove_file(gateway.log_file("upgrade.sock")).unwrap();
        let mut successor = gateway.hand_over().await;
        gateway.ended().await;
        let tally = load.end().await;
        let logs = successor.stop().await;
        assert!(tally.failed.is_empty(), "{:#?}", tally.failed);
        assert_nothing_unrecorded(&tally.stored, &[&a, &b], &logs.records);
    });
}

#[test]
fn a_successor_that_dies_when_it_should_begin_costs_nothing() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let impostor = Impostor::of(&gateway);
        gateway.signal("QUIT");
        drop(impostor.that_is_given_the_sockets().await);
        gateway.wait_for_log("not handed over").await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn sigterm_ends_a_gateway_that_waits_for_its_successor() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let impostor = Impostor::of(&gateway);
        gateway.signal("QUIT");
        let mut stream = impostor.meet().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.stop_in_sync().await;
        assert_eq!(soon("the end", stream.read(&mut [0])).await.unwrap(), 0);
    });
}

#[test]
fn sigterm_waits_until_it_is_known_who_serves() {
    run(async {
        for taken in [true, false] {
            let (a, b) = pair().await;
            let mut gateway = Gateway::over(&[&a, &b]).start().await;
            let impostor = Impostor::of(&gateway);
            gateway.signal("QUIT");
            let mut stream = impostor.that_is_given_the_sockets().await;
            gateway.signal("TERM");
            for _ in 0..20 {
                assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
            }
            if taken {
                stream.write_all(b"taken\n").await.unwrap();
                gateway.wait_for_log("took over").await;
            }
            drop(stream);
            let logs = gateway.ended().await;
            assert_eq!(logs.main.contains("not handed over"), !taken, "{}", logs.main);
            assert_eq!(logs.main.contains("no new connections"), !taken, "{}", logs.main);
        }
    });
}

#[test]
fn sigquit_without_a_successor_is_refused() {
    run(async {
        let (a, b) = pair().await;
        let setup = Gateway::over(&[&a, &b]).set("upgrade_sock_connect_accept_max_retries", 1);
        let mut gateway = setup.start().await;
        gateway.signal("QUIT");
        let line = gateway.wait_for_log("not handed over").await;
        assert!(line.contains("no successor listens at"), "{line}");
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_successor_may_come_after_sigquit() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        gateway.signal("QUIT");
        gateway.wait_for_log("SIGQUIT: handing over").await;
        let mut successor = gateway.successor().await;
        successor.wait_for_log("took over").await;
        gateway.ended().await;
        assert_eq!(successor.put("/bucket/key", b"hello").await.status, 200);
        successor.stop_in_sync().await;
    });
}

#[test]
fn a_successor_to_nobody_gives_up() {
    run(async {
        let (a, b) = pair().await;
        let setup = Gateway::over(&[&a, &b]).set("upgrade_sock_connect_accept_max_retries", 1);
        let mut successor = setup.launch(&["-u"]);
        successor.wait_for_log("no running instance came").await;
        assert_eq!(successor.exit_status().await.code(), Some(1));
        assert!(!successor.log_file("upgrade.sock").exists());
    });
}

#[test]
fn a_successor_waits_on_after_others_have_connected() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut successor = gateway.successor().await;
        let path = gateway.log_file("upgrade.sock");
        // One who leaves, one who talks nonsense, one who offers nothing, and a second successor.
        for words in [&b""[..], b"hello\n", b"{\"version\":1,\"sockets\":[\"gateway 127.0.0.1:0\"]}\n"] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(words).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        let second = akubra(&["-u", "-c", gateway.log_file("akubra.yaml").to_str().unwrap()]).await;
        assert_eq!(second.status.code(), Some(1));
        let text = String::from_utf8_lossy(&second.stderr);
        assert!(text.contains("another process listens there"), "{text}");
        gateway.signal("QUIT");
        successor.wait_for_log("took over").await;
        gateway.ended().await;
        assert_eq!(successor.put("/bucket/key", b"hello").await.status, 200);
        let logs = successor.stop_in_sync().await;
        assert!(logs.main.contains("names and descriptors do not match"), "{}", logs.main);
    });
}

#[test]
fn an_offer_that_comes_slowly_is_read_to_its_end() {
    run(async {
        let (a, b) = pair().await;
        let successor = Gateway::over(&[&a, &b]).launch(&["-u"]);
        successor.wait_for_log("waiting at").await;
        let mut stream = UnixStream::connect(successor.log_file("upgrade.sock")).await.unwrap();
        stream.write_all(b"{\"version\":1,").await.unwrap();
        // Beyond the moment in which a daemon's starter is let go.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for (said, heard) in [(&b"\"sockets\":[]}\n"[..], &b"ready\n"[..]), (b"yours\n", b"taken\n")] {
            stream.write_all(said).await.unwrap();
            let mut answer = vec![0; heard.len()];
            soon("an answer", stream.read_exact(&mut answer)).await.unwrap();
            assert_eq!(answer, heard);
        }
    });
}
