//! `--figures`: the gateway beside dialling tailscaled's own ports, in turn, in one sitting. CPU is that of
//! the sandbox's tailscaled and the gateway together.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::bare;
use crate::client::{first_byte, first_byte_by_connect};
use crate::curl::{Curl, Inbound};
use crate::gateway::Gateway;
use crate::origin::BULK;
use crate::tailnet::{HTTP_PROXY, Tailnet, UPSTREAM};

/// Times each way is measured.
const ROUNDS: usize = 5;
/// Connections, one after another, per round.
const REQUESTS: u32 = 500;

/// A way from the sandbox to `svc`.
struct Way {
    name: &'static str,
    proxy: String,
    inbound: Inbound,
    /// Whose CPU time it costs.
    pids: Vec<Pid>,
    rounds: Vec<Figures>,
}

/// One round's.
struct Figures {
    megabytes_a_second: f64,
    cpu_per_gigabyte: f64,
    first_byte_ms: f64,
    requests_a_second: f64,
    cpu_per_request_us: f64,
}

pub fn print(tailnet: &Tailnet) {
    let start = |name, size, process| {
        let settings = [("TAILRACE_UPSTREAM_POOL", size), ("TAILRACE_RECORD_PROCESS", process)];
        Gateway::start(tailnet, name, UPSTREAM, &settings)
    };
    let none = start("pool0", "0", "true");
    let eight = start("pool8", "8", "true");
    let unnamed = start("unnamed", "8", "false");
    let (bare, at) = bare::proxy(tailnet);
    let sandbox = tailnet.sandbox_pid();
    let way = |name, proxy: &str, inbound, gateway: Option<Pid>| {
        let pids = [sandbox].into_iter().chain(gateway).collect();
        Way { name, proxy: proxy.to_owned(), inbound, pids, rounds: Vec::new() }
    };
    let (socks, connect) = (Inbound::Socks5Name, Inbound::Connect);
    let mut ways = [
        way("its SOCKS5 port", UPSTREAM, socks, None),
        way("its HTTP proxy, CONNECT", HTTP_PROXY, connect, None),
        way("a bare proxy in C, SOCKS5", &at, socks, Some(bare.pid())),
        way("a bare proxy in C, CONNECT", &at, connect, Some(bare.pid())),
        way("gateway, SOCKS5, pool 0", &none.proxy, socks, Some(none.pid())),
        way("gateway, SOCKS5, pool 8", &eight.proxy, socks, Some(eight.pid())),
        way("gateway, CONNECT, pool 8", &eight.proxy, connect, Some(eight.pid())),
        way(
            "gateway, SOCKS5, pool 8, callers not named",
            &unnamed.proxy,
            socks,
            Some(unnamed.pid()),
        ),
    ];
    for _ in 0..ROUNDS {
        for way in &mut ways {
            let figures = way.measure(tailnet);
            way.rounds.push(figures);
        }
    }
    println!(
        "| to `svc` through tailscaled | MB/s | CPU s/GB | first byte, ms | requests/s | CPU µs a request |"
    );
    println!("|---|---|---|---|---|---|");
    for way in &ways {
        println!("| {} | {} |", way.name, way.cells(&ways[0]).join(" | "));
    }
    [none, eight, unnamed].into_iter().for_each(Gateway::stop);
}

impl Way {
    fn measure(&self, tailnet: &Tailnet) -> Figures {
        let (before, began) = (self.cpu(), Instant::now());
        let url = format!("http://svc:{}/bulk", crate::tailnet::PORT);
        let (bytes, _sum) = Curl::through(&self.proxy, self.inbound, &url).sum(tailnet);
        assert_eq!(bytes, BULK, "{}", self.name);
        let (gigabytes, took) = (BULK as f64 / 1e9, began.elapsed().as_secs_f64());
        let cpu_per_gigabyte = (self.cpu() - before).as_secs_f64() / gigabytes;
        let before = self.cpu();
        // Some are lost, whatever the way: they are waited for and left out.
        let (mut firsts, mut requests_took) = (Vec::new(), Duration::ZERO);
        for _ in 0..REQUESTS {
            let began = Instant::now();
            if let Ok(first) = self.first_byte(tailnet) {
                firsts.push(first);
                requests_took += began.elapsed();
            }
        }
        let cpu = (self.cpu() - before).as_secs_f64();
        firsts.sort();
        let answered = firsts.len() as f64;
        let lost = f64::from(REQUESTS) - answered;
        eprintln!("{}: {took:.1} s for {BULK} bytes, {lost} of {REQUESTS} lost", self.name);
        assert!(answered > 0.0, "{}: nothing was answered", self.name);
        Figures {
            megabytes_a_second: gigabytes * 1e3 / took,
            cpu_per_gigabyte,
            first_byte_ms: firsts[firsts.len() / 2].as_secs_f64() * 1e3,
            requests_a_second: answered / requests_took.as_secs_f64(),
            cpu_per_request_us: cpu * 1e6 / answered,
        }
    }

    fn first_byte(&self, tailnet: &Tailnet) -> io::Result<Duration> {
        tailnet.sandboxed.enter(|| match self.inbound {
            Inbound::Connect => first_byte_by_connect(&self.proxy, "svc"),
            _ => first_byte(&self.proxy, "svc"),
        })
    }

    /// User and system time so far, 100 ticks a second (proc(5), stat fields 14 and 15).
    fn cpu(&self) -> Duration {
        let of = |pid: &Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>()
        };
        Duration::from_millis(self.pids.iter().map(of).sum::<u64>() * 10)
    }

    /// Medians, and the median of the ratios to `first`, round by round.
    fn cells(&self, first: &Way) -> Vec<String> {
        let figures: [fn(&Figures) -> f64; 5] = [
            |f| f.megabytes_a_second,
            |f| f.cpu_per_gigabyte,
            |f| f.first_byte_ms,
            |f| f.requests_a_second,
            |f| f.cpu_per_request_us,
        ];
        let cell = |figure: &fn(&Figures) -> f64| {
            let own = median(self.rounds.iter().map(figure));
            let pairs = self.rounds.iter().zip(&first.rounds);
            let ratio = median(pairs.map(|(own, first)| figure(own) / figure(first)));
            format!("{own:.2} · × {ratio:.2}")
        };
        figures.iter().map(cell).collect()
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
