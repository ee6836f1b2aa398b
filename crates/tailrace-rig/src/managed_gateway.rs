//! A gateway with a tailscaled of its own: how it is set up, and what it says of it.

use std::time::Duration;

use serde_json::Value;

use super::fake_tailnet::FakeTailnet;
use super::gateway::Gateway;
use super::running_tailscaled::RunningTailscaled;
use super::setup::Setup;
use super::wait::{PATIENCE, eventually};

impl FakeTailnet {
    /// A gateway that manages this tailscaled and is ready.
    #[track_caller]
    pub fn gateway(&self, change: impl FnOnce(&mut Setup)) -> Gateway {
        let mut gateway = Gateway::start(|s| {
            s.managed(self);
            change(s);
        });
        gateway.wait_ready();
        gateway
    }
}

impl Setup {
    /// The gateway starts this tailscaled itself, with the key in its file; kind and names by
    /// default.
    pub fn managed(&mut self, tailnet: &FakeTailnet) -> &mut Setup {
        self.managed_without_key(tailnet)
            .set("tailnet.auth_key_file", tailnet.key_file().to_string_lossy().into_owned())
    }

    /// The same, the key to come another way.
    pub fn managed_without_key(&mut self, tailnet: &FakeTailnet) -> &mut Setup {
        self.set("tailnet.manage", true)
            .set("tailnet.tailscaled", tailnet.program().to_string_lossy().into_owned())
    }

    /// The gateway uses a tailscaled that is already there.
    pub fn unmanaged(&mut self, there: &RunningTailscaled) -> &mut Setup {
        self.set("tailnet.manage", false)
            .set("tailnet.socket", there.socket.to_string_lossy().into_owned())
            .set("upstream.socks5", there.socks.to_string())
    }

    /// Every connection over LocalAPI `dial`.
    pub fn sealed(&mut self) -> &mut Setup {
        self.set("upstream.kind", "localapi")
    }
}

impl Gateway {
    /// Waits until a connection would be carried, and takes that as the base of what is open.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        self.wait_ready_within(PATIENCE);
    }

    /// The same, with more or less patience.
    #[track_caller]
    pub fn wait_ready_within(&mut self, limit: Duration) {
        eventually("/readyz says 200", limit, || self.admin_get("/readyz").status() == 200);
        self.baseline = self.steady_fds();
    }

    /// The `error` of `/readyz`; none when it is ready.
    #[track_caller]
    pub fn not_ready(&self) -> Option<String> {
        let ready = self.admin_get("/readyz");
        match ready.status() {
            200 => None,
            503 => ready.json()["error"].as_str().map(str::to_owned),
            other => panic!("/readyz answered {other}"),
        }
    }

    /// Waits until `/readyz` says 503 with this `error`.
    #[track_caller]
    pub fn wait_not_ready(&self, error: &str, limit: Duration) {
        eventually(&format!("/readyz says {error}"), limit, || {
            self.not_ready().as_deref() == Some(error)
        });
    }

    /// The one state whose `tailrace_tailnet_state` is 1.
    #[track_caller]
    pub fn tailnet_state(&self) -> String {
        let metrics = self.metrics();
        let states = metrics.series().iter().filter(|(n, ..)| n == "tailrace_tailnet_state");
        let present: Vec<&str> =
            states.filter(|s| s.2 == 1.0).map(|s| s.1["state"].as_str()).collect();
        assert_eq!(present.len(), 1, "one present state: {present:?}");
        present[0].to_owned()
    }

    /// `tailrace_tailscaled_restarts_total` of one cause.
    #[track_caller]
    pub fn restarts(&self, cause: &str) -> u64 {
        self.metrics().value("tailrace_tailscaled_restarts_total", &[("cause", cause)]) as u64
    }

    /// `/api/v1/status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.admin_get("/api/v1/status").json()
    }
}

/// The first value of that key, however deep.
pub fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| find(v, key))),
        Value::Array(list) => list.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}

/// The first text that holds this, however deep.
pub fn text<'a>(value: &'a Value, needle: &str) -> Option<&'a str> {
    match value {
        Value::String(text) => text.contains(needle).then_some(text),
        Value::Object(map) => map.values().find_map(|v| self::text(v, needle)),
        Value::Array(list) => list.iter().find_map(|v| self::text(v, needle)),
        _ => None,
    }
}
