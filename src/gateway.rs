//! Assembles the modules, and ends them: binds, spawns, owns readiness, reload and drain.
//!
//! The only place, next to `connection.rs`, that knows every module.
#![forbid(unsafe_code)]

mod bind;
mod build;
mod child_command;
mod dns;
mod error;
mod explain;
mod judge;
mod local_addresses;
mod readiness;
mod reload;
mod run;
mod tailnet;
#[cfg(test)]
mod tests;
mod view;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use crate::config::Config;
use crate::connection::{self, DnsAnswerMap, GatewayState, TailnetGate};
use crate::lifecycle::children::Children;
use crate::lifecycle::cut::CutReason;
use crate::lifecycle::drain::{Drain, Phase};
use crate::lifecycle::pause::watch_for_pauses;
use crate::lifecycle::run_dir::Listening;
use crate::listener::{self, Bound};
use crate::record::Telemetry;
use crate::relay::PipePool;
use crate::secret::Secret;
use crate::sys::limits::DescriptorLimits;
use crate::upstream::Upstream;

pub use self::child_command::ChildCommand;
pub use self::error::StartError;
pub use self::judge::OfflineJudge;
pub use self::run::{Again, run};

/// How often this host's addresses are looked at again.
const OWN_REFRESH: Duration = Duration::from_secs(5);
/// How long cut connections get to write their last line.
pub(crate) const LAST_LINES: Duration = Duration::from_millis(150);

/// A running gateway. Dropping it stops nothing in good order: call [`Gateway::stop`].
pub struct Gateway {
    gateway_state: Arc<GatewayState>,
    config: Config,
    drain: Arc<Drain>,
    limits: Arc<listener::Limits>,
    live: build::Live,
    /// The limit on open files as we were started, and as it was raised.
    descriptors: DescriptorLimits,
    naming: build::ResolverFactory,
    membership: Option<tailnet::Membership>,
    stop_accepting: watch::Sender<bool>,
    bound: Listening,
}

/// What only the program can give its gateway.
#[derive(Debug, Default)]
pub struct StartupResources {
    /// The key of `TS_AUTHKEY`.
    pub key: Option<Secret>,
    /// Who waits for child processes; made when it is needed and not given.
    pub children: Option<Arc<Children>>,
}

impl Gateway {
    /// Binds every listener, then serves. Nothing is bound when it fails.
    ///
    /// # Errors
    /// [`StartError`], naming the setting and what to do.
    pub async fn start(
        config: Config,
        telemetry: Arc<Telemetry>,
        means: StartupResources,
    ) -> Result<Self, StartError> {
        let descriptors = crate::sys::limits::raise_descriptors();
        build::may_mark(config.upstream.mark)?;
        let listeners = bind::all(&config.listen, &config.forwards)?;
        let bound = listeners.listening.clone();
        let live = build::Live::new(&config);
        let states = tailnet::States::of(&config);
        let naming = build::ResolverFactory::new(states.as_ref(), config.upstream.mark);
        let gateway_state = assemble(&config, telemetry, &bound, &live, &naming, states.as_ref())?;
        naming.through(&gateway_state);
        if config.record.process
            && let Err(error) = gateway_state.telemetry.name_callers()
        {
            tracing::warn!(%error, "record.process: clients' programs are not named here");
        }
        let most = build::fitting(config.limits.max_connections, descriptors.after);
        if most < config.limits.max_connections {
            tracing::warn!(
                wanted = config.limits.max_connections,
                most,
                descriptors = descriptors.after,
                "limits.max_connections does not fit the descriptor limit and was lowered: raise it with ulimit -n"
            );
        }
        let mut gateway = Self {
            limits: listener::Limits::new(most, config.limits.per_client),
            drain: Drain::new(),
            stop_accepting: watch::Sender::new(false),
            gateway_state,
            config,
            live,
            descriptors,
            bound,
            naming,
            membership: None,
        };
        if let Some(states) = states {
            gateway.membership = tailnet::Membership::begin(&gateway, states, means)?;
        }
        gateway.serve(listeners)?;
        Ok(gateway)
    }

    /// The proxy's addresses as bound.
    pub fn proxy(&self) -> &[SocketAddr] {
        &self.bound.proxy
    }

    /// The admin listener's address as bound.
    pub fn admin(&self) -> SocketAddr {
        self.bound.admin
    }

    /// Every address as bound.
    pub fn listening(&self) -> &Listening {
        &self.bound
    }

    /// Whether a connection would be carried now.
    pub fn readiness(&self) -> crate::admin::Readiness {
        readiness::readiness(&self.gateway_state, &self.drain)
    }

    /// Why waiting will not make it ready, if so: the key was refused, or tailscaled cannot be run.
    fn hopeless(&self) -> Option<String> {
        let state = self.membership.as_ref()?.state();
        let state = state.borrow();
        let hopeless = state.phase == crate::tailnet::TailnetPhase::AuthFailed
            || matches!(state.fault, Some(crate::tailnet::TailnetFault::Binary { .. }));
        hopeless.then(|| state.fault_sentence())
    }

    fn serve(&self, listeners: bind::Listeners) -> Result<(), StartError> {
        for bound in listeners.proxy.into_iter().chain(listeners.forwards) {
            self.accept(bound);
        }
        dns::serve(self, listeners.dns);
        tokio::spawn(Arc::clone(&self.gateway_state.upstream).keep_pool());
        tokio::spawn(refresh_own(Arc::clone(&self.gateway_state), self.bound.clone()));
        let (gateway_state, pauses) =
            (Arc::clone(&self.gateway_state), self.membership.as_ref().map(|m| m.pauses()));
        tokio::spawn(watch_for_pauses(move |lost| {
            after_pause(&gateway_state, pauses.as_ref(), lost)
        }));
        view::serve(listeners.admin, self)
            .map_err(|source| StartError::System { what: "the admin thread", source })
    }

    fn accept(&self, bound: Bound) {
        let (gateway_state, drain) = (Arc::clone(&self.gateway_state), Arc::clone(&self.drain));
        let telemetry = Arc::clone(&self.gateway_state.telemetry);
        tokio::spawn(listener::accept_loop(
            bound,
            Arc::clone(&self.limits),
            self.bound.all(),
            move |errno| telemetry.count_accept_error(errno),
            move |accepted| {
                connection::spawn_connection(Arc::clone(&gateway_state), accepted, drain.guard());
            },
            self.stopped(),
        ));
    }

    /// Ends when nobody new is let in any more.
    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop_accepting.subscribe();
        async move { drop(stop.wait_for(|stop| *stop).await) }
    }

    /// Stops accepting, lets what runs finish for `drain_timeout`, then cuts it; a managed tailscaled
    /// ends after that, logged out. Everything is at once when `hurry` ends.
    pub async fn stop(&mut self, hurry: impl Future<Output = ()>) {
        let mut hurry = std::pin::pin!(hurry);
        // Whoever finds the port closed finds `/readyz` draining too.
        self.drain.advance(Phase::Draining);
        self.stop_accepting.send_replace(true);
        let patience = tokio::time::sleep(self.config.limits.drain_timeout);
        let (in_time, hurried) = tokio::select! {
            biased;
            () = self.drain.finished() => (true, false),
            () = patience => (false, false),
            () = &mut hurry => (false, true),
        };
        if !in_time {
            self.cut_all().await;
        }
        let Some(membership) = self.membership.take() else { return };
        match hurried {
            true => membership.end(std::future::ready(())).await,
            false => membership.end(hurry).await,
        }
    }

    async fn cut_all(&self) {
        self.drain.advance(Phase::Forced);
        self.gateway_state
            .telemetry
            .live_connections()
            .for_each(|entry| entry.cut().cut(CutReason::Drained));
        drop(tokio::time::timeout(LAST_LINES, self.drain.finished()).await);
    }
}

fn assemble(
    config: &Config,
    telemetry: Arc<Telemetry>,
    bound: &Listening,
    live: &build::Live,
    naming: &build::ResolverFactory,
    states: Option<&tailnet::States>,
) -> Result<Arc<GatewayState>, StartError> {
    let upstream = Upstream::new(build::upstream(&config.upstream));
    upstream.set_endpoint(build::place(config.upstream.kind));
    Ok(Arc::new(GatewayState {
        policy: ArcSwap::from_pointee(build::policy(&config.policy)?),
        local_addresses: ArcSwap::from_pointee(local_addresses::look(
            bound.all(),
            bind::internal(&config.upstream),
            states.map(tailnet::States::now).as_deref(),
        )),
        resolver: ArcSwap::from_pointee(naming.names(&config.dns)),
        upstream_kind: upstream.kind(),
        fixed_route: build::fixed_route(config.upstream.kind),
        dns_answers: DnsAnswerMap::default(),
        synthetic_addresses: ArcSwapOption::new(build::synthetic(&config.dns, None)),
        tailnet_gate: states.map(|states| states.tailnet_gate(config)),
        upstream,
        half_close: build::half_close(&config.upstream),
        pipes: PipePool::for_this_process(),
        limits: ArcSwap::from_pointee(live.limits(config)),
        telemetry,
    }))
}

/// Nothing that was known or held open before a pause is used after it.
fn after_pause(gateway_state: &GatewayState, pauses: Option<&watch::Sender<u64>>, lost: Duration) {
    tracing::warn!(
        seconds = lost.as_secs(),
        "this process or machine was paused: names are resolved anew, and what was held open upstream is closed"
    );
    gateway_state.upstream.close_pooled();
    gateway_state.resolver.load().forget_answers();
    gateway_state.dns_answers.forget_all();
    if let Some(pauses) = pauses {
        pauses.send_modify(|pauses| *pauses += 1);
    }
}

/// Keeps this host's addresses fresh: an address that appears later is ours too.
async fn refresh_own(gateway_state: Arc<GatewayState>, bound: Listening) {
    let mut tick = tokio::time::interval(OWN_REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let internal = gateway_state.local_addresses.load().internal.clone();
        let node = gateway_state.tailnet_gate.as_ref().map(TailnetGate::now);
        gateway_state.local_addresses.store(Arc::new(local_addresses::look(
            bound.all(),
            internal,
            node.as_deref(),
        )));
    }
}
