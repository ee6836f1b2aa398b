//! Assembles the rooms, and ends them: binds, spawns, owns readiness, reload and drain.
//!
//! The only place, next to `connection.rs`, that knows every room.
#![forbid(unsafe_code)]

mod bind;
mod build;
mod commanded;
mod dns;
mod error;
mod explain;
mod judge;
mod own;
mod readiness;
mod reload;
mod run;
mod tailnet;
mod view;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use crate::config::Config;
use crate::connection::{self, Answered, House, Inside};
use crate::lifecycle::children::Children;
use crate::lifecycle::cut::CutReason;
use crate::lifecycle::drain::{Drain, Phase};
use crate::lifecycle::pause::watch_for_pauses;
use crate::lifecycle::run_dir::Listening;
use crate::listener::{self, Bound};
use crate::record::Book;
use crate::relay::PipePool;
use crate::secret::Secret;
use crate::sys::limits::Descriptors;
use crate::upstream::Upstream;

pub use self::commanded::Commanded;
pub use self::error::StartError;
pub use self::judge::Judge;
pub use self::run::{Again, run};

/// How often this host's addresses are looked at again.
const OWN_REFRESH: Duration = Duration::from_secs(5);
/// How long cut connections get to write their last line.
pub(crate) const LAST_LINES: Duration = Duration::from_millis(150);

/// A running gateway. Dropping it stops nothing in good order: call [`Gateway::stop`].
pub struct Gateway {
    house: Arc<House>,
    config: Config,
    drain: Arc<Drain>,
    limits: Arc<listener::Limits>,
    live: build::Live,
    /// The limit on open files as we were started, and as it was raised.
    descriptors: Descriptors,
    naming: build::Naming,
    membership: Option<tailnet::Membership>,
    stop_accepting: watch::Sender<bool>,
    bound: Listening,
}

/// What only the program can give its gateway.
#[derive(Debug, Default)]
pub struct Means {
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
    pub async fn start(config: Config, book: Arc<Book>, means: Means) -> Result<Self, StartError> {
        let descriptors = crate::sys::limits::raise_descriptors();
        build::may_mark(config.upstream.mark)?;
        let listeners = bind::all(&config.listen, &config.forwards)?;
        let bound = listeners.listening.clone();
        let live = build::Live::new(&config);
        let states = tailnet::States::of(&config);
        let naming = build::Naming::new(states.as_ref(), config.upstream.mark);
        let house = assemble(&config, book, &bound, &live, &naming, states.as_ref())?;
        naming.through(&house);
        if config.record.process
            && let Err(error) = house.book.name_callers()
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
            house,
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
        readiness::look(&self.house, &self.drain)
    }

    /// Why waiting will not make it ready, if so: the key was refused, or tailscaled cannot be run.
    fn hopeless(&self) -> Option<String> {
        let state = self.membership.as_ref()?.state();
        let state = state.borrow();
        let hopeless = state.phase == crate::tailnet::Phase::AuthFailed
            || matches!(state.fault, Some(crate::tailnet::Fault::Binary { .. }));
        hopeless.then(|| state.sentence())
    }

    fn serve(&self, listeners: bind::Listeners) -> Result<(), StartError> {
        for bound in listeners.proxy.into_iter().chain(listeners.forwards) {
            self.accept(bound);
        }
        dns::serve(self, listeners.dns);
        tokio::spawn(Arc::clone(&self.house.upstream).keep_pool());
        tokio::spawn(refresh_own(Arc::clone(&self.house), self.bound.clone()));
        let (house, pauses) =
            (Arc::clone(&self.house), self.membership.as_ref().map(|m| m.pauses()));
        tokio::spawn(watch_for_pauses(move |lost| after_pause(&house, pauses.as_ref(), lost)));
        view::serve(listeners.admin, self)
            .map_err(|source| StartError::System { what: "the admin thread", source })
    }

    fn accept(&self, bound: Bound) {
        let (house, drain) = (Arc::clone(&self.house), Arc::clone(&self.drain));
        let book = Arc::clone(&self.house.book);
        tokio::spawn(listener::accept_loop(
            bound,
            Arc::clone(&self.limits),
            self.bound.all(),
            move |errno| book.accept_error(errno),
            move |accepted| {
                // A panic ends this task only: the record's guard writes its line on the way out.
                drop(tokio::spawn(connection::serve(Arc::clone(&house), accepted, drain.guard())));
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
        self.house.book.live().each(|entry| entry.cut().cut(CutReason::Drained));
        drop(tokio::time::timeout(LAST_LINES, self.drain.finished()).await);
    }
}

fn assemble(
    config: &Config,
    book: Arc<Book>,
    bound: &Listening,
    live: &build::Live,
    naming: &build::Naming,
    states: Option<&tailnet::States>,
) -> Result<Arc<House>, StartError> {
    let upstream = Upstream::new(build::upstream(&config.upstream));
    upstream.point(build::place(config.upstream.kind));
    Ok(Arc::new(House {
        policy: ArcSwap::from_pointee(build::policy(&config.policy)?),
        own: ArcSwap::from_pointee(own::look(
            bound.all(),
            bind::internal(&config.upstream),
            states.map(tailnet::States::now).as_deref(),
        )),
        names: ArcSwap::from_pointee(naming.names(&config.dns)),
        upstream_kind: upstream.kind().label(),
        route: build::route(config.upstream.kind),
        answered: Answered::default(),
        lent: ArcSwapOption::new(build::lent(&config.dns, None)),
        inside: states.map(|states| states.inside(config)),
        upstream,
        half_close: build::half_close(&config.upstream),
        pipes: PipePool::for_this_process(),
        limits: ArcSwap::from_pointee(live.limits(config)),
        book,
    }))
}

/// Nothing that was known or held open before a pause is used after it.
fn after_pause(house: &House, pauses: Option<&watch::Sender<u64>>, lost: Duration) {
    tracing::warn!(
        seconds = lost.as_secs(),
        "this process or machine was paused: names are resolved anew, and what was held open upstream is closed"
    );
    house.upstream.close_pooled();
    house.names.load().forget();
    house.answered.forget();
    if let Some(pauses) = pauses {
        pauses.send_modify(|pauses| *pauses += 1);
    }
}

/// Keeps this host's addresses fresh: an address that appears later is ours too.
async fn refresh_own(house: Arc<House>, bound: Listening) {
    let mut tick = tokio::time::interval(OWN_REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let internal = house.own.load().internal.clone();
        let node = house.inside.as_ref().map(Inside::now);
        house.own.store(Arc::new(own::look(bound.all(), internal, node.as_deref())));
    }
}
