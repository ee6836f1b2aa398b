//! ipn/ipnlocal in small: preferences, logins, states, and the bus that tells of them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::bus::{self, Bus, Watcher};
use super::control::Control;
use super::describe;
use super::dialect::Dialect;
use super::node::{Identity, Nodes, Store};
use super::peers;
use super::route::{Router, Way};
use super::script::{Bus as Fate, Event, Login, Script, State};
use super::stderr::log;

/// Longest pause between two attempts to log in (controlclient/auto.go).
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Shared by every connection.
pub(super) struct Backend {
    inner: Mutex<Inner>,
    changed: Notify,
    control: Control,
    nodes: Nodes,
    store: Store,
}

/// What is known now.
pub(super) struct Inner {
    pub script: Script,
    pub state: State,
    pub prefs: Value,
    /// What the control server knows it by, once it is registered.
    pub node: Option<Identity>,
    pub auth_url: String,
    pub health: std::collections::BTreeMap<String, String>,
    /// Its key came to its end; the netmap is still there.
    expired: bool,
    key: Option<String>,
    /// A login under way belongs to the control client it was begun with.
    client: u64,
    pub watchers: Vec<(u64, Watcher)>,
    /// Watchers so far.
    watched: u64,
}

impl Backend {
    /// As it is after the start: it needs a login, or is the node of its state file and goes on as that.
    pub(super) fn new(
        script: Script,
        control: Control,
        (store, kept): (Store, Option<(Identity, Value)>),
        nodes: Nodes,
    ) -> Arc<Backend> {
        let inner = Inner {
            health: script.health.clone(),
            script,
            state: State::NeedsLogin,
            prefs: describe::prefs(),
            node: None,
            expired: false,
            auth_url: String::new(),
            key: None,
            client: 0,
            watchers: Vec::new(),
            watched: 0,
        };
        let inner = Mutex::new(inner);
        let backend = Arc::new(Backend { inner, changed: Notify::new(), control, nodes, store });
        backend.resume(kept);
        backend
    }

    /// A node that the control server still knows needs no key: it is let in, if it is to be up.
    fn resume(self: &Arc<Self>, kept: Option<(Identity, Value)>) {
        let mut inner = self.look();
        let known = kept.filter(|(node, _)| self.nodes.knows(node));
        let Some((node, prefs)) = known else {
            return log("Switching ipn state NoState -> NeedsLogin (WantRunning=false, nm=false)");
        };
        inner.state = State::NoState;
        inner.prefs = prefs;
        if inner.prefs["WantRunning"] != true {
            inner.node = Some(node);
            return inner.become_state(State::Stopped);
        }
        inner.become_state(State::Starting);
        drop(inner);
        let backend = Arc::clone(self);
        tokio::spawn(async move {
            // The key it came with is not asked for again; only the way to the control server counts.
            while !matches!(backend.look().script.login, Login::Runs(_)) {
                let changed = backend.changed.notified();
                let _ = tokio::time::timeout(LONGEST_WAIT, changed).await;
            }
            backend.tell(&Event::Resumed);
            let mut inner = backend.look();
            inner.register(node);
            inner.become_state(State::Running);
        });
    }

    /// For reading.
    pub(super) fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Tells the rig.
    pub(super) fn tell(&self, event: &Event) {
        self.control.tell(event);
    }

    /// The tailnet is like this now; a login under way looks at it anew.
    pub(super) fn script(&self, script: Script) {
        let mut inner = self.look();
        let old = std::mem::replace(&mut inner.script, script);
        let new = &inner.script;
        let whole = (&old.suffix, &old.node, &old.dns) != (&new.suffix, &new.node, &new.dns);
        let peers = peers::Change::between(&old.peers, &new.peers);
        let health = old.health != new.health;
        if health {
            inner.health = inner.script.health.clone();
            inner.tell_health();
        }
        if inner.has_netmap() {
            match peers {
                _ if whole => inner.tell_netmap(),
                Some(change) => inner.tell_peers(&change),
                None => {}
            }
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// A new watcher; what it asked for first is already in its queue.
    pub(super) fn watch(self: &Arc<Self>, mask: u64) -> Bus {
        let (watcher, stream) = bus::open(mask);
        let mut inner = self.look();
        if let Some(first) = describe::first_notify(&inner, mask) {
            watcher.tell(first, None);
        }
        inner.watched += 1;
        let number = inner.watched;
        inner.watchers.push((number, watcher));
        if let Fate::Closes(after) = inner.script.bus {
            let backend = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                backend.look().watchers.retain(|(it, _)| *it != number);
            });
        }
        stream
    }

    /// Every bus stream ends.
    pub(super) fn end_bus(&self) {
        self.look().watchers.clear();
    }

    /// `ErrMessage`, once.
    pub(super) fn error(&self, said: &str) {
        self.look().notify(&[("ErrMessage", json!(said))]);
    }

    /// LocalAPI `start`: a new control client with this key; the preferences are replaced.
    pub(super) fn start(&self, options: &Value) {
        let mut inner = self.look();
        log("Start");
        inner.client += 1;
        inner.key = options["AuthKey"].as_str().filter(|k| !k.is_empty()).map(str::to_owned);
        if let Some(prefs) = options["UpdatePrefs"].as_object() {
            inner.prefs = describe::prefs_zero();
            describe::merge(&mut inner.prefs, prefs);
        }
        self.keep(&inner);
        // Nobody is told of that one.
        inner.state = State::NoState;
        let next = inner.at_rest();
        inner.become_state(next);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// LocalAPI `login-interactive`.
    pub(super) fn login(self: &Arc<Self>) {
        let client = self.look().client;
        log(&format!("control: client.Login({client})"));
        tokio::spawn(Arc::clone(self).log_in(client));
    }

    /// LocalAPI `disconnect-control`: no login goes on.
    pub(super) fn disconnect(&self) {
        self.look().client += 1;
        self.changed.notify_waiters();
    }

    /// What a log-out takes before it is done; nothing where there is no node to log out.
    pub(super) async fn reach_control_for_logout(&self) {
        let takes = {
            let inner = self.look();
            inner.node.is_some().then_some(inner.script.logout_takes)
        };
        if let Some(takes) = takes {
            tokio::time::sleep(takes).await;
        }
    }

    /// LocalAPI `logout`.
    pub(super) fn logout(&self) {
        let mut inner = self.look();
        inner.client += 1;
        inner.key = None;
        if let Some(node) = inner.node.take() {
            self.nodes.remove(&node);
            self.store.forget(inner.dialect());
            self.tell(&Event::LoggedOut);
        }
        inner.prefs = describe::prefs();
        inner.become_state(State::NeedsLogin);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// LocalAPI `prefs` with PATCH.
    pub(super) fn patch(&self, masked: &Value) {
        let mut inner = self.look();
        let fields = masked.as_object().cloned().unwrap_or_default();
        let set = |name: &str| fields.get(&format!("{name}Set")) == Some(&Value::Bool(true));
        let given = fields.iter().filter(|(name, _)| set(name));
        let given = given.map(|(name, value)| (name.clone(), value.clone())).collect();
        describe::merge(&mut inner.prefs, &given);
        self.keep(&inner);
        let prefs = inner.prefs.clone();
        inner.notify(&[("Prefs", prefs)]);
        let next = inner.at_rest();
        inner.become_state(next);
    }

    /// The backend is in this state now, whatever led there.
    pub(super) fn become_state(&self, state: State) {
        let mut inner = self.look();
        if state >= State::NeedsMachineAuth && inner.node.is_none() {
            inner.node = Some(self.nodes.register(&inner.host()));
        }
        inner.expired = inner.node.is_some() && state == State::NeedsLogin;
        inner.become_state(state);
    }

    /// Logs a `mem:` node out as SIGTERM does; one of a file stays in the tailnet.
    pub(super) async fn shut_down(&self) {
        self.end_bus();
        if !self.store.is_memory() {
            return;
        }
        let (node, fails) = {
            let inner = self.look();
            (inner.node.clone(), inner.script.logout_fails)
        };
        self.reach_control_for_logout().await;
        if fails {
            return log(
                "failed to log out ephemeral node on shutdown after 5s: context deadline exceeded",
            );
        }
        log("logged out ephemeral node on shutdown");
        if let Some(node) = node {
            self.nodes.remove(&node);
            self.tell(&Event::LoggedOut);
        }
    }

    /// Where a target leads now.
    pub(super) fn way(&self, host: &str, port: u16) -> Way {
        let inner = self.look();
        let router = Router {
            script: &inner.script,
            own: inner.name(),
            addresses: inner.addresses(),
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
                self.let_in(&mut inner);
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
                self.let_in(&mut inner);
                inner.become_state(State::NeedsMachineAuth);
            }
            Login::NoRelay(said) => {
                self.let_in(&mut inner);
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

    /// The control server takes the node in, as the one it is or as a new one.
    fn let_in(&self, inner: &mut Inner) {
        let node = inner.node.clone().unwrap_or_else(|| self.nodes.register(&inner.host()));
        inner.register(node);
        inner.prefs["LoggedOut"] = json!(false);
        self.keep(inner);
        let prefs = inner.prefs.clone();
        inner.notify(&[("Prefs", prefs)]);
    }

    fn keep(&self, inner: &Inner) {
        if let Some(node) = &inner.node {
            self.store.keep(node, &inner.prefs);
        }
    }
}

impl Inner {
    /// Whether there is a netmap.
    pub(super) fn has_netmap(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn dialect(&self) -> Dialect {
        Dialect::of(&self.script.version)
    }

    /// The name it would go by if nobody else did.
    fn host(&self) -> String {
        let host = self.prefs["Hostname"].as_str().filter(|h| !h.is_empty()).unwrap_or("vm");
        self.script.node.name.as_deref().unwrap_or(host).to_owned()
    }

    /// This node's whole name.
    pub(super) fn name(&self) -> String {
        let host = self.host();
        let name = self.node.as_ref().map_or_else(|| host.clone(), |node| node.name(&host));
        format!("{name}.{}", self.script.suffix)
    }

    /// This node's addresses, in the tailnet or to be.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let first = &self.script.node.addresses;
        self.node.as_ref().map_or_else(|| first.clone(), |node| node.addresses(first))
    }

    fn become_state(&mut self, state: State) {
        if self.state == state {
            return;
        }
        let (from, to) = (self.state.label(), state.label());
        log(&format!(
            "Switching ipn state {from} -> {to} (WantRunning={}, nm={})",
            self.prefs["WantRunning"],
            self.has_netmap()
        ));
        self.state = state;
        self.notify(&[("State", json!(state as u8))]);
    }

    /// The state that preferences and node lead to, with no login under way.
    fn at_rest(&self) -> State {
        match (self.node.is_some() && !self.expired, self.prefs["WantRunning"] == true) {
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
    fn register(&mut self, node: Identity) {
        if self.node.replace(node).is_some() {
            return;
        }
        self.auth_url.clear();
        if self.health.remove("login-state").is_some() {
            self.tell_health();
        }
        self.notify(&[("LoginFinished", json!({}))]);
        self.become_state(State::Starting);
        self.tell_netmap();
    }
}
