//! What one gateway gives a collector to carry, and what many of them do.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::load;
use crate::measure::Figures;
use crate::targets::Started;

/// Seconds between two scrapes.
const INTERVAL: f64 = 30.0;
/// Bytes Prometheus keeps of a sample: "an average of only 1-2 bytes" (its storage documentation).
const SAMPLE: f64 = 2.0;
const DAY: f64 = 86_400.0;

/// What one gateway gives a collector to carry.
pub(crate) async fn inside(target: &Started, figures: &mut Figures) -> io::Result<()> {
    load::connections(target, 32, Duration::from_millis(500)).await?;
    tokio::time::sleep(Duration::from_millis(1_500)).await; // the log's writer is done
    let log = std::fs::read(target.folder().join("access.log"))?;
    let lines = log.split(|byte| *byte == b'\n');
    let is_access = |line: &&[u8]| line.windows(10).any(|part| part == b"\"bytes_up\"");
    let access: Vec<usize> = lines.filter(is_access).map(|line| line.len() + 1).collect();
    figures.insert("line".into(), access.iter().sum::<usize>() as f64 / access.len() as f64);
    let last = scrape(target)?;
    figures.insert("series".into(), last.series);
    figures.insert("scrape".into(), last.bytes);
    let (done, _, cpu) = target
        .cost(async {
            for _ in 0..200 {
                scrape(target)?;
            }
            io::Result::Ok(())
        })
        .await;
    done?;
    figures.insert("scrape.cpu".into(), cpu / 200.0 * 1e6);
    Ok(())
}

pub(crate) struct Scrape {
    pub(crate) series: f64,
    pub(crate) bytes: f64,
}

pub(crate) fn scrape(target: &Started) -> io::Result<Scrape> {
    let mut stream = TcpStream::connect(("127.0.0.1", target.admin.unwrap_or_default()))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let series = body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    Ok(Scrape { series: series as f64, bytes: text.len() as f64 })
}

/// The measured figures, and the arithmetic of a fleet.
pub(crate) fn section(given: &Figures) -> String {
    let of = |name: &str| given.get(name).copied().unwrap_or(f64::NAN);
    let mut text = String::from("### For a collector\n\n| of one gateway | |\n|---|---|\n");
    for (name, what) in [
        ("series", "series at `/metrics`"),
        ("scrape", "bytes of one scrape, not compressed"),
        ("scrape.cpu", "CPU of the gateway for one scrape, µs"),
        ("line", "bytes of one access line"),
    ] {
        writeln!(text, "| {what} | {:.0} |", of(name)).unwrap();
    }
    text += "\n| gateways | series | samples a second | scrapes, MB/s | samples kept, GB a day | access lines \
             at 1 target a second each, GB a day |\n|---|---|---|---|---|---|\n";
    for gateways in [100.0, 1_000.0, 10_000.0] {
        let samples = gateways * of("series") / INTERVAL;
        writeln!(
            text,
            "| {gateways:.0} | {:.0} | {samples:.0} | {:.2} | {:.1} | {:.1} |",
            gateways * of("series"),
            gateways * of("scrape") / INTERVAL / 1e6,
            samples * SAMPLE * DAY / 1e9,
            gateways * of("line") * DAY / 1e9,
        )
        .unwrap();
    }
    text
}
