//! The life of a managed tailscaled: started, watched, started again, and at the end logged out.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::RestartBackoff;
use super::child_log::ChildLog;
use super::explain::TailnetFault;
use super::localapi_session::LocalApiSession;
use super::login::NodeLogin;
use super::oom_kills::OomKills;
use super::process::TailscaledLauncher;
use super::state::{StatusFeed, TailnetPhase};
use super::state_store::StateStore;
use super::{StopRequest, SupervisorHooks, TailnetSettings, random};
use crate::labels::RestartCause;
use crate::lifecycle::children::{Child, Ended};
use crate::lifecycle::port_owner;
use crate::localapi::LocalApi;

/// Time to log out after SIGTERM: 5 s for that, 5 s for control, 1 s for logs, and some more
/// (ipn/ipnlocal/local.go:1210).
const LOGOUT: Duration = Duration::from_secs(15);
/// Between two looks at whether it still answers, and how many silent ones end it (T3).
const PROBE: Duration = Duration::from_secs(5);
const MISSES: u32 = 3;
/// Waiting for a killed process: the kernel does not take longer.
const KILLED: Duration = Duration::from_secs(2);

/// Everything the life of a managed tailscaled needs.
pub(super) struct TailscaledSupervisor {
    pub(super) settings: Arc<TailnetSettings>,
    pub(super) store: StateStore,
    pub(super) hooks: Arc<SupervisorHooks>,
    pub(super) launcher: TailscaledLauncher,
    pub(super) login: Box<dyn Fn() -> NodeLogin + Send + Sync>,
    pub(super) jitter: Duration,
    pub(super) pauses: watch::Receiver<u64>,
}

/// How one life ended.
enum TailscaledEnd {
    /// By itself.
    Ended(Ended),
    /// It hung, and we ended it.
    Hung,
    /// We were asked to stop.
    Stopped,
}

impl TailscaledSupervisor {
    /// Runs until it is told to stop. `first` was started beforehand.
    pub(super) async fn supervise(
        mut self,
        first: Result<RunningTailscaled, TailnetFault>,
        mut stop: watch::Receiver<StopRequest>,
    ) {
        let mut backoff = RestartBackoff::new();
        let mut next = Some(first);
        loop {
            let begun = Instant::now();
            let started = match next.take() {
                Some(started) => started,
                None => self.start_child(),
            };
            match started {
                Ok(mut running) => {
                    let oom = OomKills::of_own_group();
                    match self.watch_child(&mut running, &mut stop).await {
                        TailscaledEnd::Stopped => return,
                        TailscaledEnd::Hung => self.note_restart(RestartCause::Hang),
                        TailscaledEnd::Ended(ended) => {
                            self.note_restart(restart_cause(ended, &oom));
                            self.explain(ended, &running).await;
                        }
                    }
                }
                Err(fault) => self.store.settle_phase(TailnetPhase::Unreachable, fault),
            }
            let pause = backoff.delay_after(begun.elapsed(), random::random_number());
            if backoff.is_loop() {
                self.call_it_a_loop();
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = wait_for_stop(&mut stop, StopRequest::Gently) => return,
            }
        }
    }

    /// Starts one.
    pub(super) fn start_child(&self) -> Result<RunningTailscaled, TailnetFault> {
        let log = ChildLog::new(Arc::clone(&self.hooks.dropped_lines));
        let child = self.launcher.start_child(&log)?;
        let process = Some(child.id());
        self.store.update(|state| {
            state.process = process;
            (state.phase, state.fault) = (TailnetPhase::Starting, None);
        });
        Ok(RunningTailscaled { child, log })
    }

    async fn watch_child(
        &mut self,
        running: &mut RunningTailscaled,
        stop: &mut watch::Receiver<StopRequest>,
    ) -> TailscaledEnd {
        let RunningTailscaled { child, log } = running;
        let process = child.id();
        let mut login = (self.login)();
        login.jitter = std::mem::take(&mut self.jitter);
        let session = LocalApiSession {
            api: LocalApi::new(&self.settings.socket),
            store: self.store.clone(),
            settings: Arc::clone(&self.settings),
            login: Some(login),
            pauses: self.pauses.clone(),
        };
        tokio::select! {
            biased;
            () = wait_for_stop(stop, StopRequest::Gently) => {}
            ended = child.ended() => return TailscaledEnd::Ended(ended),
            () = self.note_hang(process) => {
                let _gone_already = child.signal(Signal::KILL);
                let _in_time = timeout(KILLED, child.ended()).await;
                return TailscaledEnd::Hung;
            }
            () = Box::pin(session.run_session()) => {}
            () = self.find_port(log, process) => {}
        }
        self.end_child(child, stop).await;
        TailscaledEnd::Stopped
    }

    /// Ends when it has not answered three times in a row. A process that is still starting is left
    /// alone: nothing is known to be there yet.
    async fn note_hang(&self, process: u32) {
        let mut misses = 0;
        loop {
            sleep(PROBE).await;
            if !self.store.get(|state| state.version.is_some()) {
                continue;
            }
            misses = if (self.hooks.probe)().await { 0 } else { misses + 1 };
            if misses >= MISSES {
                tracing::error!(pid = process, "tailscaled does not answer any more: it is killed");
                return;
            }
        }
    }

    /// Makes its SOCKS5 port known, once it has one and it is its own. Never ends.
    async fn find_port(&self, log: &ChildLog, process: u32) {
        let Some(asked) = self.settings.socks else { return std::future::pending().await };
        let port = match asked.port() {
            0 => log.named_port().await,
            _ => self.wait_until_listening(asked).await,
        };
        match other_listener(port, process) {
            None => self.store.update(|state| state.port = Some(port)),
            Some(owner) => {
                let fault = TailnetFault::PortStolen { port, owner: Some(owner) };
                self.store.update(|state| state.barred = Some(fault));
            }
        }
        std::future::pending().await
    }

    /// Waits until somebody listens at a port that was asked for by number.
    async fn wait_until_listening(&self, port: SocketAddr) -> SocketAddr {
        while !port_owner::is_taken(port) {
            sleep(Duration::from_millis(20)).await;
        }
        port
    }

    /// Logs it out and waits for its end; a second request to stop ends it at once.
    async fn end_child(&self, child: &mut Child, stop: &mut watch::Receiver<StopRequest>) {
        let mut patient = *stop.borrow() == StopRequest::Gently;
        if patient && self.launcher.identity_store().wants_logout() {
            patient = self.log_out(stop).await;
        }
        if patient && child.signal(Signal::TERM).is_ok() {
            tokio::select! {
                ended = child.ended() => {
                    tracing::info!("tailscaled has logged out and ended with {ended}");
                    return;
                }
                () = sleep(LOGOUT) => {
                    tracing::error!("tailscaled did not log out within {LOGOUT:?}: it is killed");
                }
                () = wait_for_stop(stop, StopRequest::Now) => {}
            }
        }
        let _gone_already = child.signal(Signal::KILL);
        let _in_time = timeout(KILLED, child.ended()).await;
    }

    /// A node whose identity is kept in a file is not logged out by tailscaled itself at its end. False:
    /// it is to end at once.
    async fn log_out(&self, stop: &mut watch::Receiver<StopRequest>) -> bool {
        let api = LocalApi::new(&self.settings.socket);
        tokio::select! {
            logged_out = api.log_out() => {
                if let Err(error) = logged_out {
                    tracing::warn!(%error, "the node could not be logged out: the control server forgets an ephemeral one after a while");
                }
                true
            }
            () = wait_for_stop(stop, StopRequest::Now) => false,
        }
    }

    /// What it leaves behind: nothing of it is true any more.
    fn note_restart(&self, cause: RestartCause) {
        (self.hooks.restarted)(cause);
        self.store.update(|state| {
            state.phase = TailnetPhase::Unreachable;
            (state.fault, state.barred) = (None, None);
            (state.process, state.port, state.node, state.version) = (None, None, None, None);
            state.feed = StatusFeed::Pending;
            state.health.clear();
        });
    }

    async fn explain(&self, ended: Ended, running: &RunningTailscaled) {
        let (how, last) = (ended.to_string(), running.log.last_line());
        let fault = match (running.log.unknown_flag(), self.settings.socks) {
            (Some(flag), _) => {
                TailnetFault::UnknownFlag { flag, version: self.launcher.version_said().await }
            }
            (None, Some(port)) if port.port() != 0 && port_owner::of(port).is_some() => {
                TailnetFault::PortStolen { port, owner: port_owner::of(port) }
            }
            (None, _) => TailnetFault::Ended { how, last },
        };
        self.store.set_phase(TailnetPhase::Unreachable, fault);
    }

    fn call_it_a_loop(&self) {
        let fault = match self.store.get(|state| state.fault.clone()) {
            Some(TailnetFault::Ended { how, last }) => Some(TailnetFault::CrashLoop { how, last }),
            other => other,
        };
        self.store.settle_phase(TailnetPhase::CrashLoop, fault);
    }
}

/// Ends when `stop` is asked for, or more.
async fn wait_for_stop(stop: &mut watch::Receiver<StopRequest>, least: StopRequest) {
    // The sender is gone only with the gateway: then it is asked for.
    drop(stop.wait_for(|stop| *stop >= least).await);
}

/// A process that runs.
pub(super) struct RunningTailscaled {
    child: Child,
    log: Arc<ChildLog>,
}

/// The process that holds `port`, if that is known and not the child or its group (a wrapper script
/// may stand between us and it).
fn other_listener(port: SocketAddr, process: u32) -> Option<u32> {
    let owner = port_owner::of(port)?;
    let group = i32::try_from(owner).ok().and_then(rustix::process::Pid::from_raw);
    let group = group.and_then(|pid| rustix::process::getpgid(Some(pid)).ok());
    let ours = group.is_some_and(|group| group.as_raw_nonzero().get().cast_unsigned() == process);
    (owner != process && !ours).then_some(owner)
}

/// The `cause` of the metric.
fn restart_cause(ended: Ended, oom: &OomKills) -> RestartCause {
    match ended {
        Ended::Code(_) => RestartCause::Exit,
        Ended::Signal(9) if oom.has_risen() => RestartCause::Oom,
        Ended::Signal(_) => RestartCause::Signal,
    }
}
