//! What a SIGHUP changes: `policy`, `limits`, `log`, `dns`, `relay`, nothing else.
#![forbid(unsafe_code)]

use super::settings::Config;

/// The settings after a reload.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// The running settings with the reloadable tables taken over.
    pub config: Config,
    /// Tables that differ in the file and were kept: they need a restart.
    pub kept: Vec<&'static str>,
}

/// Lays the reloadable tables of `fresh` over the running settings.
pub fn reloaded(running: &Config, fresh: Config) -> Reloaded {
    let same = [
        ("run_dir", running.run_dir == fresh.run_dir),
        ("listen", running.listen == fresh.listen),
        ("forward", running.forwards == fresh.forwards),
        ("transparent", running.transparent == fresh.transparent),
        ("upstream", running.upstream == fresh.upstream),
        ("tailnet", running.tailnet == fresh.tailnet),
        ("record", running.record == fresh.record),
    ];
    let kept = same.iter().filter(|(_, same)| !same).map(|(table, _)| *table).collect();
    let Config {
        // A table that is added has to be put on one side or the other.
        run_dir: _,
        listen: _,
        forwards: _,
        transparent: _,
        upstream: _,
        tailnet: _,
        record: _,
        dns,
        policy,
        limits,
        relay,
        log,
    } = fresh;
    let config = Config { dns, policy, limits, relay, log, ..running.clone() };
    Reloaded { config, kept }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DnsMode, PolicyMode, UpstreamKind};

    #[test]
    fn s7_only_reloadable_tables_change() {
        let old = Config::with_upstream(UpstreamKind::Direct, "/a".into());
        let mut fresh = old.clone();
        fresh.policy.mode = PolicyMode::Off;
        fresh.dns.mode = DnsMode::Upstream;
        fresh.upstream.pool = 3;
        let done = reloaded(&old, fresh);
        assert_eq!(done.kept, ["upstream"]);
        assert_eq!(done.config.policy.mode, PolicyMode::Off);
        assert_eq!(done.config.upstream.pool, 8);
    }
}
