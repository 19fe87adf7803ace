//! Who is checked, when, and what came of it.

use std::collections::HashMap;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::check::{Check, ServerKey};
use crate::finding::{Finding, Outcome};
use crate::judge::{Judge, Standing};

/// News that can wait to be received. Those beyond wait with their servers, which then tell only
/// what holds last.
const NEWS_MAX: usize = 1_024;

/// So much of an interval is at most added to it or left out, so that checks which began together
/// do not stay together.
const JITTER: f64 = 0.1;

/// How checks are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Checks at once, at least 1.
    ///
    /// One that finds no place waits its turn, first come, first served, and its server's next
    /// check is that much later. A check that hangs holds its place until its timeout, so with
    /// every server hanging there are still `concurrent_max` checks in each timeout. Each takes a
    /// descriptor, a command a process.
    pub concurrent_max: usize,
    /// What the times of checks are drawn with; the same seed gives the same times.
    pub seed: u64,
}

/// Checks servers, each in a task of its own, until it is dropped.
#[derive(Debug)]
pub struct Checkers {
    shared: Arc<Shared>,
    table: Mutex<Table>,
    runtime: Handle,
}

/// That a server is to be treated differently from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whose.
    pub key: ServerKey,
    /// What it is now.
    pub standing: Standing,
    /// Its weight, 0 to 253, where a command gives it one; `None` for the configured one. Of a
    /// server that is down always `None`.
    pub weight: Option<u32>,
    /// What the last check said.
    pub reason: String,
}

/// How a server does, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose health it is.
    pub key: ServerKey,
    /// What is asked, by its name in the configuration.
    pub kind: &'static str,
    /// What holds.
    pub standing: Standing,
    /// For how long.
    pub held: Duration,
    /// The weight that a command gave it; `None` for the configured one.
    pub weight: Option<u32>,
    /// What the last check found; `None` before the first.
    pub last: Option<Finding>,
    /// How long the last check took, its wait for a place left out.
    pub took: Duration,
    /// Good checks since the last bad one.
    pub good: u32,
    /// Bad checks since the last good one.
    pub bad: u32,
    /// Checks since it is known under this key, with any result.
    pub checks: u64,
    /// Bad ones among them.
    pub failed: u64,
    /// Those without a result among them; see [`Outcome::Unknown`].
    pub unknown: u64,
    /// How often it went up or down.
    pub changes: u64,
}

/// How busy the checkers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Servers that are checked.
    pub servers: usize,
    /// Checks going on.
    pub running: usize,
    /// Checks waiting for a place.
    pub waiting: usize,
    /// Checks that ever had to wait for one: if it keeps growing, there are too few places.
    pub late: u64,
}

/// Asks a server; [`Check::ask`], except in tests.
type Ask =
    dyn Fn(ServerKey, Arc<Check>) -> Pin<Box<dyn Future<Output = Finding> + Send>> + Send + Sync;

struct Shared {
    ask: Box<Ask>,
    places: Semaphore,
    running: AtomicUsize,
    waiting: AtomicUsize,
    late: AtomicU64,
    news: Sender<News>,
}

#[derive(Debug)]
struct Table {
    entries: HashMap<ServerKey, Entry>,
    random: Rng,
}

#[derive(Debug)]
struct Entry {
    check: Arc<Check>,
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

/// What is known of a server.
#[derive(Clone, Debug)]
struct Record {
    judge: Judge,
    /// What the receiver of news knows.
    told: (Standing, Option<u32>),
    since: Instant,
    last: Option<Finding>,
    took: Duration,
    checks: u64,
    failed: u64,
    unknown: u64,
    changes: u64,
    /// Whether another check has taken over: what this one still finds counts no more.
    is_over: bool,
}

impl Checkers {
    /// Begins without servers. The checks will run in the tokio runtime that this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> (Self, Receiver<News>) {
        let ask = |key: ServerKey, check: Arc<Check>| async move { check.ask(&key).await }.boxed();
        Self::start_asking(settings, Box::new(ask))
    }

    fn start_asking(settings: Settings, ask: Box<Ask>) -> (Self, Receiver<News>) {
        let (news, received) = mpsc::channel(NEWS_MAX);
        let places = settings.concurrent_max.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Shared {
            ask,
            places: Semaphore::new(places),
            running: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            late: AtomicU64::new(0),
            news,
        };
        let table = Table { entries: HashMap::new(), random: Rng::with_seed(settings.seed) };
        let checkers =
            Self { shared: Arc::new(shared), table: Mutex::new(table), runtime: Handle::current() };
        (checkers, received)
    }

    /// Says who is checked from now on, and how.
    ///
    /// A check that was there and is equal goes on undisturbed. Where it is another one, the server
    /// keeps its standing and weight until the new one has been good or bad often enough. A server
    /// that was not there is what its check's [`start`](Check::start) says, and there are no news
    /// of that. One that is left out is forgotten. Of two checks with the same key the first counts.
    pub fn set(&self, wanted: impl IntoIterator<Item = (ServerKey, Check)>) {
        let mut table = lock(&self.table);
        let mut before = mem::take(&mut table.entries);
        for (key, check) in wanted {
            if table.entries.contains_key(&key) {
                continue;
            }
            let entry = match before.remove(&key) {
                Some(entry) if *entry.check == check => entry,
                Some(entry) => {
                    let record = entry.end();
                    let judge = record.judge.with(check.rise, check.fall);
                    self.begin(&key, check, Record { judge, ..record }, &mut table.random)
                }
                None => {
                    let record = Record::new(&check);
                    self.begin(&key, check, record, &mut table.random)
                }
            };
            table.entries.insert(key, entry);
        }
        for entry in before.into_values() {
            entry.end();
        }
    }

    fn begin(&self, key: &ServerKey, check: Check, record: Record, random: &mut Rng) -> Entry {
        let check = Arc::new(check);
        let record = Arc::new(Mutex::new(record));
        let round = Round {
            shared: Arc::clone(&self.shared),
            key: key.clone(),
            check: Arc::clone(&check),
            record: Arc::clone(&record),
            random: random.fork(),
        };
        Entry { check, record, task: self.runtime.spawn(round.go()) }
    }

    /// What a server is and which weight a command gave it; `None` when it is not checked.
    #[must_use]
    pub fn standing(&self, key: &ServerKey) -> Option<(Standing, Option<u32>)> {
        let table = lock(&self.table);
        let record = lock(&table.entries.get(key)?.record);
        Some(record.holds())
    }

    /// How each server does, in the order of their keys.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        let now = Instant::now();
        let table = lock(&self.table);
        let report = |(key, entry): (&ServerKey, &Entry)| {
            let record = lock(&entry.record).clone();
            let (standing, weight) = record.holds();
            let Record { judge, last, took, checks, failed, unknown, changes, .. } = record;
            Report {
                key: key.clone(),
                kind: entry.check.kind.name(),
                standing,
                held: now.saturating_duration_since(record.since),
                weight,
                last,
                took,
                good: judge.good(),
                bad: judge.bad(),
                checks,
                failed,
                unknown,
                changes,
            }
        };
        let mut reports: Vec<_> = table.entries.iter().map(report).collect();
        reports.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        reports
    }

    /// How busy they are.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            servers: lock(&self.table).entries.len(),
            running: self.shared.running.load(Relaxed),
            waiting: self.shared.waiting.load(Relaxed),
            late: self.shared.late.load(Relaxed),
        }
    }
}

impl Drop for Checkers {
    fn drop(&mut self) {
        self.set([]);
    }
}

impl Entry {
    /// Stops checking, and returns what was found.
    fn end(self) -> Record {
        let mut record = lock(&self.record);
        record.is_over = true;
        self.task.abort();
        Record { is_over: false, ..record.clone() }
    }
}

impl Record {
    fn new(check: &Check) -> Self {
        Self {
            judge: Judge::new(check.start, check.rise, check.fall),
            told: (check.start, None),
            since: Instant::now(),
            last: None,
            took: Duration::ZERO,
            checks: 0,
            failed: 0,
            unknown: 0,
            changes: 0,
            is_over: false,
        }
    }

    fn holds(&self) -> (Standing, Option<u32>) {
        (self.judge.standing(), self.judge.weight())
    }

    fn note(&mut self, finding: Finding, took: Duration) {
        let before = self.judge.standing();
        self.judge.hear(finding.outcome);
        self.checks += 1;
        match finding.outcome {
            Outcome::Good { .. } => {}
            Outcome::Bad => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        if self.judge.standing() != before {
            self.since = Instant::now();
            self.changes += 1;
        }
        self.last = Some(finding);
        self.took = took;
    }

    /// Tells what holds, unless it is known. If there is no room for it, the next check tries again.
    fn tell(&mut self, key: &ServerKey, news: &Sender<News>) {
        let holds = self.holds();
        if holds == self.told {
            return;
        }
        let (standing, weight) = holds;
        let reason = self.last.as_ref().map(|finding| finding.reason.clone()).unwrap_or_default();
        if news.try_send(News { key: key.clone(), standing, weight, reason }).is_ok() {
            self.told = holds;
        }
    }
}

/// The checks of one server, one after the other.
struct Round {
    shared: Arc<Shared>,
    key: ServerKey,
    check: Arc<Check>,
    record: Arc<Mutex<Record>>,
    random: Rng,
}

impl Round {
    async fn go(mut self) {
        // Servers that were set together are spread over their first interval.
        let mut due = Instant::now() + self.check.interval.mul_f64(self.random.f64());
        loop {
            sleep_until(due).await;
            let begun = {
                let _place = self.shared.place().await;
                let begun = Instant::now();
                let finding = self.ask().await;
                let mut record = lock(&self.record);
                if record.is_over {
                    return;
                }
                record.note(finding, begun.elapsed());
                record.tell(&self.key, &self.shared.news);
                begun
            };
            due = begun + self.pause();
        }
    }

    async fn ask(&self) -> Finding {
        let asked = async { (self.shared.ask)(self.key.clone(), Arc::clone(&self.check)).await };
        // Else a mistake in a check would leave the server with its last standing for ever.
        AssertUnwindSafe(asked)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Finding::unknown("the check panicked; please report it"))
    }

    /// From the beginning of one check to that of the next.
    fn pause(&mut self) -> Duration {
        let interval = match lock(&self.record).judge.standing() {
            Standing::Up => self.check.interval,
            Standing::Down => self.check.down_interval,
        };
        interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * self.random.f64())
    }
}

/// A place among the checks at once, given back when dropped.
struct Place<'s> {
    running: &'s AtomicUsize,
    _permit: SemaphorePermit<'s>,
}

/// Counts one who waits, also when it is stopped meanwhile.
struct Waiting<'s>(&'s AtomicUsize);

impl Shared {
    async fn place(&self) -> Place<'_> {
        let permit = if let Ok(permit) = self.places.try_acquire() {
            permit
        } else {
            self.late.fetch_add(1, Relaxed);
            self.waiting.fetch_add(1, Relaxed);
            let _waiting = Waiting(&self.waiting);
            self.places.acquire().await.expect("the semaphore is never closed")
        };
        self.running.fetch_add(1, Relaxed);
        Place { running: &self.running, _permit: permit }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("places", &self.places).finish_non_exhaustive()
    }
}

/// Nothing that holds a lock here can panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::error::TryRecvError;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::check::Kind;

    const INTERVAL: Duration = Duration::from_secs(10);
    const DOWN_INTERVAL: Duration = Duration::from_secs(100);

    /// Who was asked when, since the beginning.
    #[derive(Default)]
    struct Diary(Mutex<Vec<(u16, Duration)>>);

    impl Diary {
        fn times(&self, port: u16) -> Vec<Duration> {
            let entries = lock(&self.0);
            entries.iter().filter(|(of, _)| *of == port).map(|(_, time)| *time).collect()
        }

        fn len(&self) -> usize {
            lock(&self.0).len()
        }
    }

    fn key(port: u16) -> ServerKey {
        ServerKey { service: "web".to_owned(), server: ([10, 0, 0, 1], port).into() }
    }

    fn check(port: u16) -> Check {
        Check {
            kind: Kind::Tcp,
            target: key(port).server,
            interval: INTERVAL,
            down_interval: DOWN_INTERVAL,
            timeout: INTERVAL,
            rise: 2,
            fall: 3,
            start: Standing::Up,
        }
    }

    fn every(ports: std::ops::Range<u16>) -> Vec<(ServerKey, Check)> {
        ports.map(|port| (key(port), check(port))).collect()
    }

    /// Checkers whose checks take as long and find what `script` says of a port and of how often it
    /// was asked before.
    fn scripted(
        concurrent_max: usize,
        script: impl Fn(u16, usize) -> (Duration, Finding) + Send + Sync + 'static,
    ) -> (Checkers, Receiver<News>, Arc<Diary>) {
        let diary = Arc::new(Diary::default());
        let begun = Instant::now();
        let write = Arc::clone(&diary);
        let ask = move |key: ServerKey, _: Arc<Check>| {
            let port = key.server.port();
            let times = write.times(port).len();
            lock(&write.0).push((port, begun.elapsed()));
            let (takes, finding) = script(port, times);
            async move {
                sleep(takes).await;
                finding
            }
            .boxed()
        };
        let settings = Settings { concurrent_max, seed: 7 };
        let (checkers, news) = Checkers::start_asking(settings, Box::new(ask));
        (checkers, news, diary)
    }

    fn good() -> (Duration, Finding) {
        (Duration::ZERO, Finding::good("well"))
    }

    fn bad() -> (Duration, Finding) {
        (Duration::ZERO, Finding::bad("ill"))
    }

    fn drain(news: &mut Receiver<News>) -> Vec<(u16, Standing)> {
        std::iter::from_fn(|| news.try_recv().ok())
            .map(|news| (news.key.server.port(), news.standing))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn first_checks_are_spread_over_the_interval() {
        let (checkers, _news, diary) = scripted(1_000, |_, _| good());
        checkers.set(every(0..1_000));
        for tenth in 1..=9 {
            sleep(INTERVAL / 10).await;
            let asked = diary.len();
            assert!((tenth * 100 - 60..=tenth * 100 + 60).contains(&asked), "{tenth}: {asked}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn intervals_differ_by_a_tenth_and_are_right_on_average() {
        let (checkers, _news, diary) = scripted(1, |_, _| good());
        checkers.set(every(0..1));
        sleep(INTERVAL * 1_000).await;
        let times = diary.times(0);
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!((9_000..9_200).contains(&least.as_millis()), "{least:?}");
        assert!((10_800..=11_001).contains(&most.as_millis()), "{most:?}");
        assert!((980..=1_020).contains(&times.len()), "{}", times.len());
    }

    #[tokio::test(start_paused = true)]
    async fn interval_is_from_beginning_to_beginning() {
        let takes = INTERVAL / 2;
        let (checkers, _news, diary) = scripted(1, move |_, _| (takes, Finding::good("slowly")));
        checkers.set(every(0..1));
        sleep(INTERVAL * 100).await;
        assert!((95..=105).contains(&diary.len()), "{}", diary.len());
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_is_down_is_asked_at_its_own_interval() {
        let (checkers, _news, diary) = scripted(1, |_, _| bad());
        checkers.set(every(0..1));
        sleep(DOWN_INTERVAL * 100).await;
        assert!((95..=105).contains(&diary.len()), "{}", diary.len());
    }

    #[tokio::test(start_paused = true)]
    async fn news_are_told_at_changes_alone() {
        let bad_ones = [3, 4, 6, 7, 8, 9];
        let (checkers, mut news, _) =
            scripted(1, move |_, time| if bad_ones.contains(&time) { bad() } else { good() });
        checkers.set(every(0..1));
        sleep(INTERVAL * 7).await;
        assert_eq!(drain(&mut news), []);
        sleep(INTERVAL * 3).await;
        let told = news.try_recv().unwrap();
        let expected =
            News { key: key(0), standing: Standing::Down, weight: None, reason: "ill".to_owned() };
        assert_eq!(told, expected);
        sleep(DOWN_INTERVAL * 4).await;
        assert_eq!(drain(&mut news), [(0, Standing::Up)]);
        let reports = checkers.reports();
        assert_eq!((reports[0].standing, reports[0].changes), (Standing::Up, 2));
        assert_eq!(reports[0].failed, 6);
        assert!(reports[0].held < DOWN_INTERVAL * 2, "{:?}", reports[0].held);
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_starts_down_comes_up_with_its_first_good_check() {
        let (checkers, mut news, _) = scripted(1, |_, _| good());
        checkers.set([(key(0), Check { start: Standing::Down, ..check(0) })]);
        assert_eq!(checkers.standing(&key(0)), Some((Standing::Down, None)));
        assert_eq!(drain(&mut news), []);
        sleep(INTERVAL).await;
        assert_eq!(drain(&mut news), [(0, Standing::Up)]);
        assert_eq!(checkers.standing(&key(0)), Some((Standing::Up, None)));
        assert_eq!(checkers.standing(&key(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn weight_of_a_command_is_news_as_well() {
        let (checkers, mut news, _) = scripted(1, |_, time| {
            let weight = if time < 3 { None } else { Some(5) };
            (Duration::ZERO, Finding::new(Outcome::Good { weight }, "exit".to_owned()))
        });
        checkers.set(every(0..1));
        sleep(INTERVAL * 10).await;
        let told = news.try_recv().unwrap();
        assert_eq!((told.standing, told.weight), (Standing::Up, Some(5)));
        assert_eq!(news.try_recv(), Err(TryRecvError::Empty));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_checks_run_at_once_than_there_are_places() {
        let takes = INTERVAL / 4;
        let (checkers, _news, diary) = scripted(3, move |_, _| (takes, Finding::good("slowly")));
        checkers.set(every(0..40));
        let mut most = 0;
        for _ in 0..4_000 {
            sleep(INTERVAL / 100).await;
            let Load { running, waiting, .. } = checkers.load();
            assert!(running <= 3 && running + waiting <= 40, "{running} and {waiting}");
            most = most.max(waiting);
        }
        let Load { servers, late, .. } = checkers.load();
        assert!(servers == 40 && most > 20 && late > 100, "{servers}, {most}, {late}");
        // Three places at four checks an interval, for forty intervals, shared evenly.
        let times: Vec<_> = (0..40).map(|port| diary.times(port).len()).collect();
        assert!(times.iter().all(|times| (11..=13).contains(times)), "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_check_delays_no_other_server() {
        let (checkers, _news, diary) = scripted(2, |port, _| match port {
            0 => (INTERVAL * 100, Finding::bad("hung")),
            _ => good(),
        });
        checkers.set(every(0..50));
        sleep(INTERVAL * 50).await;
        assert_eq!(diary.times(0).len(), 1);
        let times: Vec<_> = (1..50).map(|port| diary.times(port).len()).collect();
        assert!(times.iter().all(|times| (46..=54).contains(times)), "{times:?}");
        assert_eq!(checkers.load().late, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn equal_check_goes_on_undisturbed_and_another_keeps_the_standing() {
        let script = |port, time| match (port, time) {
            // Down for good, and up at the first check after the change.
            (0, _) | (1, ..4) => bad(),
            _ => good(),
        };
        let (untouched, _news, expected) = scripted(10, script);
        let (checkers, mut news, diary) = scripted(10, script);
        untouched.set(every(0..3));
        checkers.set(every(0..3));
        sleep(DOWN_INTERVAL * 3).await;
        assert_eq!(drain(&mut news).len(), 2);
        assert_eq!(checkers.standing(&key(1)), Some((Standing::Down, None)));
        let asked = (diary.times(1).len(), diary.times(2).len());

        // Another interval for 1; 2 is gone, 3 is new.
        let another = Check { interval: INTERVAL * 2, down_interval: INTERVAL, ..check(1) };
        checkers.set([(key(0), check(0)), (key(1), another), (key(3), check(3))]);
        assert_eq!(checkers.standing(&key(1)), Some((Standing::Down, None)));
        assert_eq!(checkers.standing(&key(2)), None);
        while diary.times(1).len() < asked.0 + 2 {
            assert_eq!(drain(&mut news), [], "before it was good twice");
            sleep(INTERVAL / 10).await;
        }
        sleep(DOWN_INTERVAL * 2).await;
        assert_eq!(drain(&mut news), [(1, Standing::Up)]);
        assert_eq!(diary.times(0), expected.times(0));
        assert_eq!(diary.times(2).len(), asked.1);
        assert!(!diary.times(3).is_empty());
        let reports = checkers.reports();
        let known: Vec<_> = reports.iter().map(|report| report.key.server.port()).collect();
        assert_eq!(known, [0, 1, 3]);
        assert_eq!(reports[1].checks, diary.times(1).len() as u64, "it is still the same server");
    }

    #[tokio::test(start_paused = true)]
    async fn check_in_flight_that_was_replaced_counts_no_more() {
        let (checkers, mut news, diary) = scripted(10, |_, time| match time {
            0 => (INTERVAL / 2, Finding::bad("late")),
            _ => good(),
        });
        checkers.set(every(0..1));
        while diary.len() == 0 {
            advance(Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(checkers.load().running, 1);
        checkers.set([(key(0), Check { fall: 1, ..check(0) })]);
        sleep(INTERVAL * 3).await;
        assert_eq!(drain(&mut news), []);
        assert_eq!(checkers.reports()[0].failed, 0);
        assert_eq!(checkers.load().running, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn news_without_room_wait_with_their_servers_and_tell_what_holds_last() {
        let servers = 2 * u16::try_from(NEWS_MAX).unwrap();
        // Down at the second check; every fourth server is up again two checks later.
        let (checkers, mut news, _) = scripted(usize::MAX, |port, time| match time {
            1 => bad(),
            2.. if port % 4 > 0 => bad(),
            _ => good(),
        });
        let check = |port| Check { fall: 1, rise: 2, down_interval: INTERVAL, ..check(port) };
        checkers.set((0..servers).map(|port| (key(port), check(port))));
        sleep(INTERVAL * 6).await;
        let mut told = drain(&mut news);
        assert_eq!(told.len(), NEWS_MAX);
        while told.len() < 10_000 {
            sleep(INTERVAL * 2).await;
            let more = drain(&mut news);
            if more.is_empty() {
                break;
            }
            told.extend(more);
        }
        let mut known = HashMap::new();
        for (port, standing) in told {
            assert_ne!(known.insert(port, standing), Some(standing), "{port} was told twice");
        }
        for port in 0..servers {
            let (standing, _) = checkers.standing(&key(port)).unwrap();
            assert_eq!(known.get(&port).copied().unwrap_or_default(), standing, "{port}");
            assert_eq!(standing == Standing::Up, port % 4 == 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn check_that_panics_leaves_the_standing_and_is_tried_again() {
        let (checkers, mut news, diary) =
            scripted(1, |_, time| if time < 3 { panic!("of the test") } else { good() });
        checkers.set(every(0..1));
        sleep(INTERVAL * 10).await;
        assert!(diary.len() > 5);
        assert_eq!(checkers.reports()[0].unknown, 3);
        assert_eq!(drain(&mut news), []);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_after_the_checkers_are_gone() {
        let (checkers, mut news, diary) = scripted(10, |_, _| good());
        checkers.set(every(0..10));
        sleep(INTERVAL * 2).await;
        drop(checkers);
        let asked = diary.len();
        sleep(INTERVAL * 2).await;
        assert_eq!(diary.len(), asked);
        assert_eq!(news.recv().await, None);
    }
}
