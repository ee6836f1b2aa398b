//! Everything about one target, in one process of its own: [`inside`] runs there.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use crate::load::{self, Bulk, Door, Way};
use crate::targets::{self, Started, Target};

/// One round's figures of one target, by the names of [`crate::tables`].
pub(crate) type Figures = BTreeMap<String, f64>;

/// How much work a measure is; `BENCH_SECONDS` scales it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// Seconds of each bulk transfer and of each run of short connections.
    pub(crate) seconds: f64,
    pub(crate) idle: usize,
    pub(crate) beside: usize,
}

impl Amount {
    pub(crate) fn from_environment() -> Amount {
        Amount {
            seconds: number("BENCH_SECONDS", 0.8),
            idle: number("BENCH_IDLE", 1_000.0) as usize,
            beside: number("BENCH_BESIDE", 9_000.0) as usize,
        }
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The longest any one measure may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(40);

/// Which measures are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All.
    All,
    /// All, and again beside idle connections.
    Beside,
}

/// Measures `target`; what failed is named on standard error and left out.
pub(crate) async fn inside(target: Target, wanted: Wanted, amount: Amount) -> io::Result<Figures> {
    crate::room::raise_descriptors();
    let (_far, port) = targets::far_end()?;
    let mut figures = Figures::new();
    let began = Instant::now();
    let started = Started::new(target, port, "")?;
    load::once(Door::from(&started), load::HOST).await?;
    figures.insert("start".into(), began.elapsed().as_secs_f64() * 1e3);
    let measuring = Measuring { target: &started, amount };
    let mut measured = measuring.all().await;
    figures.append(&mut measured);
    if wanted == Wanted::Beside {
        measuring.beside(&mut figures).await;
    }
    Ok(figures)
}

pub(crate) struct Measuring<'a> {
    pub(crate) target: &'a Started,
    pub(crate) amount: Amount,
}

impl Measuring<'_> {
    async fn all(&self) -> Figures {
        let mut figures = Figures::new();
        for streams in [1, 8] {
            for way in [Way::Down, Way::Up] {
                self.keep(&mut figures, self.bulk(way, streams)).await;
            }
        }
        self.keep(&mut figures, self.connect(1)).await;
        self.keep(&mut figures, self.trips()).await;
        self.keep(&mut figures, self.connect(32)).await;
        self.keep(&mut figures, self.idle(self.amount.idle)).await;
        figures
    }

    /// Again, less of it, while many others rest.
    async fn beside(&self, figures: &mut Figures) {
        let held =
            tokio::time::timeout(PATIENCE, load::idle(self.target, self.amount.beside)).await;
        let held = match held {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => return eprintln!("  no {} idle: {error}", self.amount.beside),
            Err(_) => return eprintln!("  no {} idle: too slow", self.amount.beside),
        };
        let mut beside = Figures::new();
        self.keep(&mut beside, self.rest()).await;
        self.keep(&mut beside, self.bulk(Way::Down, 1)).await;
        self.keep(&mut beside, self.bulk(Way::Up, 8)).await;
        self.keep(&mut beside, self.connect(32)).await;
        self.keep(&mut beside, self.trips()).await;
        figures.extend(beside.into_iter().map(|(name, value)| (format!("beside.{name}"), value)));
        drop(held);
    }

    pub(crate) async fn keep(
        &self,
        figures: &mut Figures,
        measure: impl Future<Output = io::Result<Vec<(String, f64)>>>,
    ) {
        match tokio::time::timeout(PATIENCE, measure).await {
            Ok(Ok(found)) => figures.extend(found.into_iter().filter(|(_, v)| v.is_finite())),
            Ok(Err(error)) => eprintln!("  a measure failed: {error}"),
            Err(_) => eprintln!("  a measure took more than {PATIENCE:?}"),
        }
    }

    /// As many bytes as fill the time at the rate of a first few.
    pub(crate) async fn bulk(&self, way: Way, streams: u64) -> io::Result<Vec<(String, f64)>> {
        const FIRST: u64 = 96 << 20;
        let began = Instant::now();
        load::bulk(self.target, Bulk { way, streams, bytes: FIRST }).await?;
        let rate = FIRST as f64 / began.elapsed().as_secs_f64();
        let bytes = ((rate * self.amount.seconds) as u64).clamp(64 << 20, 8 << 30) >> 20 << 20;
        let bulk = Bulk { way, streams, bytes };
        let (done, seconds, cpu) = self.target.cost(load::bulk(self.target, bulk)).await;
        done?;
        let gigabytes = bytes as f64 / 1e9;
        let name = match way {
            Way::Down => format!("down{streams}"),
            Way::Up => format!("up{streams}"),
        };
        Ok(vec![
            (format!("{name}.rate"), gigabytes / seconds),
            (format!("{name}.cpu"), cpu / gigabytes),
        ])
    }

    pub(crate) async fn connect(&self, at_once: usize) -> io::Result<Vec<(String, f64)>> {
        let _warm =
            load::connections(self.target, at_once, self.amount.time().div_f64(8.0)).await?;
        let work = load::connections(self.target, at_once, self.amount.time());
        let (made, seconds, cpu) = self.target.cost(work).await;
        let made = made? as f64;
        Ok(vec![
            (format!("connect{at_once}.rate"), made / seconds),
            (format!("connect{at_once}.cpu"), cpu / made * 1e6),
        ])
    }

    pub(crate) async fn trips(&self) -> io::Result<Vec<(String, f64)>> {
        let trips = load::round_trips(self.target, 4_000).await?;
        let at = |part: f64| trips[(trips.len() as f64 * part) as usize] * 1e6;
        Ok(vec![("trip.p50".into(), at(0.5)), ("trip.p99".into(), at(0.99))])
    }

    pub(crate) async fn idle(&self, n: usize) -> io::Result<Vec<(String, f64)>> {
        self.settled().await;
        let before = (self.target.pss(), self.target.descriptors());
        let held = load::idle(self.target, n).await?;
        let after = (self.target.pss(), self.target.descriptors());
        let each = |before: f64, after: f64| (after - before) / held.len() as f64;
        Ok(vec![
            ("idle.pss".into(), each(before.0, after.0)),
            ("idle.fds".into(), each(before.1, after.1)),
        ])
    }

    /// Waits, two seconds at most, until the connections of the measure before are all closed.
    async fn settled(&self) {
        let mut last = f64::NAN;
        for _ in 0..20 {
            let now = self.target.descriptors();
            if now == last {
                return;
            }
            last = now;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// CPU milliseconds a second while nothing happens.
    async fn rest(&self) -> io::Result<Vec<(String, f64)>> {
        let (_, seconds, cpu) = self.target.cost(tokio::time::sleep(self.amount.time())).await;
        Ok(vec![("rest.cpu".into(), cpu / seconds * 1e3)])
    }
}
