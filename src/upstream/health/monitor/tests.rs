//! The states under paused time: the clock jumps to whatever is waited for next, so that minutes cost nothing.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use super::{super::tests, *};

/// Surroundings that do as they are told.
#[derive(Default)]
struct World {
    /// Outcomes of the next checks; then `sick` decides.
    script: Mutex<VecDeque<Checked>>,
    sick: AtomicBool,
    hangs: AtomicBool,
    full: AtomicBool,
    needed: AtomicBool,
    checks: AtomicUsize,
}

#[async_trait]
impl Surroundings for Arc<World> {
    async fn check(&self, check: &HealthCheck) -> Checked {
        self.checks.fetch_add(1, Relaxed);
        if self.hangs.load(Relaxed) {
            sleep(check.timeout).await;
            return Checked::Failed("it hangs".into());
        }
        let next = self.script.lock().unwrap().pop_front();
        next.unwrap_or_else(|| match self.sick.load(Relaxed) {
            true => Checked::Failed("as told".into()),
            false => Checked::Good,
        })
    }

    fn eject(&self, _: f64, take_out: &mut (dyn FnMut() + Send)) -> Result<(), String> {
        match self.full.load(Relaxed) {
            true => Err("c".into()),
            false => {
                take_out();
                Ok(())
            }
        }
    }

    fn is_needed(&self) -> bool {
        self.needed.load(Relaxed)
    }
}

/// A monitor at work.
struct Watch {
    health: Arc<Health>,
    world: Arc<World>,
}

/// How closely states are watched.
const STEP: Duration = Duration::from_millis(20);

fn watch(name: &str, change: impl FnOnce(&mut HealthPolicy)) -> Watch {
    let mut policy = tests::policy();
    change(&mut policy);
    let health = Arc::new(tests::health(&format!("http://{name}.test"), policy));
    let world = Arc::new(World::default());
    tokio::spawn(Monitor::new(health.clone(), world.clone()).run());
    Watch { health, world }
}

impl Watch {
    fn state(&self) -> State {
        self.health.status().state
    }

    /// How long it takes to come into a state.
    async fn until(&self, state: State) -> Duration {
        let begun = Instant::now();
        while self.state() != state {
            assert!(
                begun.elapsed() < Duration::from_secs(3600),
                "never {state:?}: {:?}",
                self.health.status()
            );
            sleep(STEP).await;
        }
        begun.elapsed()
    }

    fn ring(&self) {
        self.health.raise(Rule::ErrorRate, || "a test".into());
    }

    fn checks(&self) -> usize {
        self.world.checks.load(Relaxed)
    }

    fn set(&self, flag: impl Fn(&World) -> &AtomicBool, value: bool) {
        flag(&self.world).store(value, Relaxed);
    }
}

fn without_checks(policy: &mut HealthPolicy) {
    policy.check.kind = CheckKind::None;
}

fn about(seconds: u64) -> std::ops::RangeInclusive<Duration> {
    let full = Duration::from_secs(seconds);
    full * 3 / 4 - STEP..=full + 2 * STEP
}

#[tokio::test(start_paused = true)]
async fn a_sick_backend_is_out_at_once_and_checks_bring_it_back() {
    let watch = watch("back", without_checks);
    watch.ring();
    assert!(watch.until(State::Ejected).await <= 2 * STEP);
    assert_eq!(watch.health.status().reason, "a test");
    assert!(!watch.health.is_in());
    let out = watch.until(State::Probation).await;
    assert!(about(10).contains(&out), "{out:?}");
    // While it was out nobody asked it; now the first of two checks has been made.
    assert_eq!(watch.checks(), 1);
    assert!(!watch.health.is_in());
    let probation = watch.until(State::Healthy).await;
    assert!(
        (Duration::from_secs(5)..=Duration::from_secs(5) + 3 * STEP).contains(&probation),
        "{probation:?}"
    );
    assert_eq!((watch.checks(), watch.health.is_in()), (2, true));
    assert_eq!(watch.health.status().reason, "2 health checks in a row were good");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stays_sick_is_asked_once_in_ever_longer_times() {
    let watch = watch("sick", without_checks);
    watch.set(|world| &world.hangs, true);
    watch.ring();
    for (asked, seconds) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        watch.until(State::Ejected).await;
        let out = watch.until(State::Probation).await;
        assert!(about(seconds).contains(&out), "{seconds}: {out:?}");
        assert_eq!(watch.checks(), asked + 1);
    }
    assert!(watch.until(State::Ejected).await <= Duration::from_secs(1) + 3 * STEP);
    assert_eq!(watch.health.status().reason, "a health check failed in probation: it hangs");
}

#[tokio::test(start_paused = true)]
async fn one_good_check_of_two_is_not_enough() {
    let watch = watch("half", without_checks);
    *watch.world.script.lock().unwrap() = [Checked::Good, Checked::Failed("as told".into())].into();
    watch.ring();
    watch.until(State::Probation).await;
    watch.until(State::Ejected).await;
    let out = watch.until(State::Probation).await;
    assert!(about(20).contains(&out), "{out:?}");
    watch.until(State::Healthy).await;
}

#[tokio::test(start_paused = true)]
async fn checks_that_fail_in_a_row_take_a_backend_out() {
    let watch = watch("checks", |_| {});
    let failed = || Checked::Failed("as told".into());
    *watch.world.script.lock().unwrap() =
        [failed(), failed(), Checked::Good, failed(), Checked::Skipped, failed(), failed()].into();
    let found = watch.until(State::Ejected).await;
    assert_eq!(watch.checks(), 7);
    // Six intervals after the first one, which comes within one.
    assert!((Duration::from_secs(30)..Duration::from_secs(36)).contains(&found), "{found:?}");
    assert_eq!(watch.health.status().reason, "3 health checks failed in a row, the last: as told");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_does_not_hold_up_the_bell() {
    let watch = watch("bell", |policy| policy.check.unhealthy = 1_000);
    watch.set(|world| &world.hangs, true);
    while watch.checks() == 0 {
        sleep(STEP).await;
    }
    watch.ring();
    assert!(watch.until(State::Ejected).await <= 2 * STEP);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_be_spared_goes_as_soon_as_it_can_if_it_is_still_sick() {
    let watch = watch("spared", without_checks);
    watch.set(|world| &world.full, true);
    for _ in 0..5 {
        watch.health.cut("a test");
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!((watch.state(), watch.health.is_kept_in()), (State::Healthy, true));
    assert_eq!(watch.health.metrics.refused.get(), 1);
    watch.set(|world| &world.full, false);
    assert!(watch.until(State::Ejected).await <= NAP + 3 * STEP);
    assert!(!watch.health.is_kept_in());
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_be_spared_and_gets_well_stays() {
    let watch = watch("stays", without_checks);
    watch.set(|world| &world.full, true);
    for _ in 0..5 {
        watch.health.cut("a test");
    }
    sleep(Duration::from_secs(3)).await;
    assert!(watch.health.is_kept_in());
    watch.health.answered(std::time::Instant::now(), None, Duration::ZERO);
    sleep(2 * NAP).await;
    watch.set(|world| &world.full, false);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((watch.state(), watch.health.is_kept_in()), (State::Healthy, false));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_needed_is_asked_at_every_interval() {
    let watch = watch("needed", |policy| {
        without_checks(policy);
        policy.ejection.time = Duration::from_secs(3_600);
        policy.ejection.max_time = Duration::from_secs(3_600);
    });
    watch.set(|world| &world.sick, true);
    watch.ring();
    watch.until(State::Ejected).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(watch.checks(), 0);
    watch.set(|world| &world.needed, true);
    sleep(Duration::from_secs(20)).await;
    assert!((4..=5).contains(&watch.checks()), "{}", watch.checks());
    watch.set(|world| &world.sick, false);
    assert!(watch.until(State::Healthy).await <= Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn what_there_is_to_ask_is_waited_for_in_probation() {
    let watch = watch("skipped", without_checks);
    *watch.world.script.lock().unwrap() = [Checked::Skipped, Checked::Good, Checked::Skipped].into();
    watch.ring();
    watch.until(State::Probation).await;
    let probation = watch.until(State::Healthy).await;
    assert_eq!((watch.checks(), probation.as_secs()), (4, 15));
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_comes_back_and_none_is_taken_out() {
    let watch = watch("off", |policy| policy.ejection.max_time = Duration::from_secs(3_600));
    watch.ring();
    watch.until(State::Ejected).await;
    let mut off = tests::policy();
    off.ejection.enabled = false;
    watch.health.policy.store(Arc::new(off));
    assert!(watch.until(State::Healthy).await <= NAP + 3 * STEP);
    assert_eq!(watch.health.status().reason, "ejection is switched off");
    watch.set(|world| &world.sick, true);
    watch.ring();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(watch.state(), State::Healthy);
    assert!(watch.checks() >= 11, "they are made and counted all the same");
}

#[tokio::test(start_paused = true)]
async fn a_new_monitor_begins_with_a_healthy_backend() {
    let health = Arc::new(tests::health("http://anew.test", tests::policy()));
    health.enter(State::Ejected, "a test".into());
    let watch = Watch { health: health.clone(), world: Arc::new(World::default()) };
    tokio::spawn(Monitor::new(health, watch.world.clone()).run());
    assert!(watch.until(State::Healthy).await <= 2 * STEP);
}
