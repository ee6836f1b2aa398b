//! ipn/ipnlocal in small: preferences, logins, states, and the bus that tells of them.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::control::Control;
use crate::describe;
use crate::route::{Router, Way};
use crate::script::{Event, Login, Script, State};
use crate::stderr::log;

/// A watcher's queue (ipnlocal/local.go); what does not fit is dropped without a word.
const QUEUE: usize = 128;
/// Longest pause between two attempts to log in (controlclient/auto.go).
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Shared by every connection.
pub struct Backend {
    inner: Mutex<Inner>,
    changed: Notify,
    control: Control,
}

/// What is known now.
pub struct Inner {
    pub script: Script,
    pub state: State,
    pub prefs: Value,
    /// Registered with the control server.
    pub node: bool,
    pub auth_url: String,
    pub health: std::collections::BTreeMap<String, String>,
    /// Its key came to its end; the netmap is still there.
    expired: bool,
    key: Option<String>,
    /// A login under way belongs to the control client it was begun with.
    client: u64,
    watchers: Vec<(u64, mpsc::Sender<Bytes>)>,
}

impl Backend {
    /// As it is after the start: `mem:` knows no node, so it needs a login.
    pub fn new(script: Script, control: Control) -> Arc<Backend> {
        log("Switching ipn state NoState -> NeedsLogin (WantRunning=false, nm=false)");
        let inner = Inner {
            health: script.health.clone(),
            script,
            state: State::NeedsLogin,
            prefs: describe::prefs(),
            node: false,
            expired: false,
            auth_url: String::new(),
            key: None,
            client: 0,
            watchers: Vec::new(),
        };
        Arc::new(Backend { inner: Mutex::new(inner), changed: Notify::new(), control })
    }

    /// For reading.
    pub fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Tells the rig.
    pub fn tell(&self, event: &Event) {
        self.control.tell(event);
    }

    /// The tailnet is like this now; a login under way looks at it anew.
    pub fn script(&self, script: Script) {
        let mut inner = self.look();
        let old = std::mem::replace(&mut inner.script, script);
        let new = &inner.script;
        let netmap = (&old.suffix, &old.node, &old.peers, &old.dns)
            != (&new.suffix, &new.node, &new.peers, &new.dns);
        let health = old.health != new.health;
        if health {
            inner.health = inner.script.health.clone();
            inner.tell_health();
        }
        if netmap && inner.has_netmap() {
            let (map, node) = (describe::netmap(&inner), describe::self_node(&inner));
            inner.notify(&[("NetMap", map), ("SelfChange", node)]);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// A new watcher; what it asked for first is already in its queue.
    pub fn watch(&self, mask: u64) -> mpsc::Receiver<Bytes> {
        let (queue, watcher) = mpsc::channel(QUEUE);
        let mut inner = self.look();
        if let Some(first) = describe::first_notify(&inner, mask) {
            let _ = queue.try_send(first);
        }
        inner.watchers.push((mask, queue));
        watcher
    }

    /// Every bus stream ends.
    pub fn end_bus(&self) {
        self.look().watchers.clear();
    }

    /// `ErrMessage`, once.
    pub fn error(&self, said: &str) {
        self.look().notify(&[("ErrMessage", json!(said))]);
    }

    /// LocalAPI `start`: a new control client with this key; the preferences are replaced.
    pub fn start(&self, options: &Value) {
        let mut inner = self.look();
        log("Start");
        inner.client += 1;
        inner.key = options["AuthKey"].as_str().filter(|k| !k.is_empty()).map(str::to_owned);
        if let Some(prefs) = options["UpdatePrefs"].as_object() {
            inner.prefs = describe::prefs_zero();
            describe::merge(&mut inner.prefs, prefs);
        }
        inner.become_state(State::NoState);
        let next = inner.at_rest();
        inner.become_state(next);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// LocalAPI `login-interactive`.
    pub fn login(self: &Arc<Self>) {
        let client = self.look().client;
        log(&format!("control: client.Login({client})"));
        tokio::spawn(Arc::clone(self).log_in(client));
    }

    /// LocalAPI `disconnect-control`: no login goes on.
    pub fn disconnect(&self) {
        self.look().client += 1;
        self.changed.notify_waiters();
    }

    /// LocalAPI `logout`.
    pub fn logout(&self) {
        let mut inner = self.look();
        inner.client += 1;
        inner.key = None;
        if std::mem::take(&mut inner.node) {
            self.tell(&Event::LoggedOut);
        }
        inner.become_state(State::NeedsLogin);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// LocalAPI `prefs` with PATCH.
    pub fn patch(&self, masked: &Value) {
        let mut inner = self.look();
        let fields = masked.as_object().cloned().unwrap_or_default();
        let set = |name: &str| fields.get(&format!("{name}Set")) == Some(&Value::Bool(true));
        let given = fields.iter().filter(|(name, _)| set(name));
        let given = given.map(|(name, value)| (name.clone(), value.clone())).collect();
        describe::merge(&mut inner.prefs, &given);
        let prefs = inner.prefs.clone();
        inner.notify(&[("Prefs", prefs)]);
        let next = inner.at_rest();
        inner.become_state(next);
    }

    /// The backend is in this state now, whatever led there.
    pub fn become_state(&self, state: State) {
        let mut inner = self.look();
        inner.node |= state >= State::NeedsMachineAuth;
        inner.expired = inner.node && state == State::NeedsLogin;
        inner.become_state(state);
    }

    /// Logs a `mem:` node out as SIGTERM does.
    pub async fn shut_down(&self) {
        self.end_bus();
        let (node, takes, fails) = {
            let inner = self.look();
            (inner.node, inner.script.logout_takes, inner.script.logout_fails)
        };
        if node {
            tokio::time::sleep(takes).await;
        }
        if fails {
            return log(
                "failed to log out ephemeral node on shutdown after 5s: context deadline exceeded",
            );
        }
        log("logged out ephemeral node on shutdown");
        if node {
            self.tell(&Event::LoggedOut);
        }
    }

    /// Where a target leads now.
    pub fn way(&self, host: &str, port: u16) -> Way {
        let inner = self.look();
        let router = Router {
            script: &inner.script,
            own: inner.name(),
            running: inner.state == State::Running,
            accepts_routes: inner.prefs["RouteAll"] == true,
        };
        router.way(host, port)
    }

    /// One login, until it worked or its control client is gone.
    async fn log_in(self: Arc<Self>, client: u64) {
        let mut wait = Duration::from_millis(100);
        let mut last = None;
        loop {
            let changed = self.changed.notified();
            let Some((login, key)) = self.attempt(client) else { return };
            let again = last.as_ref() == Some(&login);
            if !again || matches!(login, Login::Refused(_)) {
                self.tell(&Event::Login(key));
                if self.step(&login, client).await {
                    return;
                }
            }
            last = Some(login);
            let _ = tokio::time::timeout(wait, changed).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// What the login leads to now; none once another control client has taken over.
    fn attempt(&self, client: u64) -> Option<(Login, Option<String>)> {
        let inner = self.look();
        let key = inner.key.clone();
        (inner.client == client).then(|| {
            let login = match &key {
                Some(key) => inner.script.keys.get(key).unwrap_or(&inner.script.login).clone(),
                None => Login::Browse("https://login.tailscale.com/a/0123456789ab".to_owned()),
            };
            (login, key)
        })
    }

    /// Does it; true when there is nothing left to try.
    async fn step(&self, login: &Login, client: u64) -> bool {
        if let Login::Runs(after) = login {
            tokio::time::sleep(*after).await;
        }
        let mut inner = self.look();
        if inner.client != client {
            return true;
        }
        match login {
            Login::Runs(_) => {
                inner.register();
                inner.expired = false;
                inner.health.remove("no-derp-connection");
                let up = inner.prefs["WantRunning"] == true;
                inner.become_state(if up { State::Running } else { State::Stopped });
                return true;
            }
            Login::Refused(said) => {
                log(&format!("Received error: {said}"));
                inner.login_failed(said);
                inner.notify(&[("ErrMessage", json!(said))]);
            }
            Login::Unreachable(said) => {
                log(&format!("Received error: {said}"));
                inner.login_failed(said);
            }
            Login::NeedsApproval => {
                inner.register();
                inner.become_state(State::NeedsMachineAuth);
            }
            Login::NoRelay(said) => {
                inner.register();
                inner.health.insert("no-derp-connection".to_owned(), said.clone());
                inner.tell_health();
            }
            Login::Browse(url) => {
                inner.auth_url = url.clone();
                inner.notify(&[("BrowseToURL", json!(url))]);
            }
            Login::Never => {}
        }
        false
    }
}

impl Inner {
    /// Whether there is a netmap.
    pub fn has_netmap(&self) -> bool {
        self.node
    }

    /// This node's whole name.
    pub fn name(&self) -> String {
        let host = self.prefs["Hostname"].as_str().filter(|h| !h.is_empty()).unwrap_or("vm");
        let name = self.script.node.name.as_deref().unwrap_or(host);
        format!("{name}.{}", self.script.suffix)
    }

    /// Sends every watcher these fields; the others are null or left out.
    pub fn notify(&mut self, fields: &[(&str, Value)]) {
        if self.script.mute_bus {
            return;
        }
        let line = describe::notify(&self.script.version, fields);
        self.watchers.retain(|(_, queue)| match queue.try_send(line.clone()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    fn tell_health(&mut self) {
        let health = describe::health(&self.health);
        self.notify(&[("Health", health)]);
    }

    fn become_state(&mut self, state: State) {
        if self.state == state {
            return;
        }
        let (from, to) = (self.state.label(), state.label());
        log(&format!(
            "Switching ipn state {from} -> {to} (WantRunning={}, nm={})",
            self.prefs["WantRunning"], self.node
        ));
        self.state = state;
        self.notify(&[("State", json!(state as u8))]);
    }

    /// The state that preferences and node lead to, with no login under way.
    fn at_rest(&self) -> State {
        match (self.node && !self.expired, self.prefs["WantRunning"] == true) {
            (false, _) => State::NeedsLogin,
            (true, true) => State::Running,
            (true, false) => State::Stopped,
        }
    }

    fn login_failed(&mut self, said: &str) {
        let text = format!("You are logged out. The last login error was: {said}");
        self.health.insert("login-state".to_owned(), text);
        self.tell_health();
    }

    /// The control server knows the node: `LoginFinished`, then the first netmap.
    fn register(&mut self) {
        if self.node {
            return;
        }
        self.node = true;
        self.auth_url.clear();
        if self.health.remove("login-state").is_some() {
            self.tell_health();
        }
        self.notify(&[("LoginFinished", json!({}))]);
        self.become_state(State::Starting);
        let (map, node) = (describe::netmap(self), describe::self_node(self));
        self.notify(&[("NetMap", map), ("SelfChange", node)]);
    }
}
