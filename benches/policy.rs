//! A verdict at 10,000 suffixes: it must not grow with the list.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tailrace::policy::{LocalAddresses, Mode, Policy, Rules, Suffix};
use tailrace::target::Target;

fn policy_of(suffixes: usize) -> Policy {
    let suffix = |i| Suffix::parse(&format!(".team-{i}.corp.example.com")).unwrap();
    Policy::new(Rules {
        mode: Mode::Enforce,
        suffixes: (0..suffixes).map(suffix).collect(),
        globs: vec!["grafana-*.corp.example.com".to_owned()],
        nets: Vec::new(),
        deny_nets: Vec::new(),
        require_sni: false,
    })
    .unwrap()
}

fn verdicts(c: &mut Criterion) {
    let own = LocalAddresses::default();
    for n in [10, 10_000] {
        let policy = policy_of(n);
        for (what, host) in [
            ("allowed", format!("db.team-{}.corp.example.com:5432", n - 1)),
            ("denied", "www.elsewhere.example.net:443".to_owned()),
        ] {
            let target = Target::parse_authority(host.as_bytes(), None).unwrap();
            c.bench_function(&format!("{n} suffixes, {what}"), |b| {
                b.iter(|| policy.judge_target(&own, black_box(&target)).0);
            });
        }
    }
}

criterion_group!(benches, verdicts);
criterion_main!(benches);
