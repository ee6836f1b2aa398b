//! A connection that came by address: netfilter sent it here, and only the kernel knows where it was going.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::{House, tunnel};
use crate::inbound::{Kind, Request};
use crate::lifecycle::drain::Guard;
use crate::outcome::Outcome;
use crate::record::Connection;
use crate::sys::Stream;
use crate::target::{Host, Target};

/// A connection that came by address: nothing is read before the far side is there, because it may
/// be the one to speak first.
pub(super) async fn transparent(
    house: &House,
    stream: Stream,
    mut connection: Connection,
    to: SocketAddr,
    full: bool,
    drain: &Guard,
) {
    connection.kind(Kind::Transparent.label());
    match std::num::NonZeroU16::new(to.port()) {
        Some(port) => {
            let target = Target { host: Host::from(to.ip()), port };
            let request = Request::unspoken(Kind::Transparent, target);
            tunnel(house, stream, connection, request, full, drain).await;
        }
        None => {
            stream.reset_on_close();
            connection.record().finish(Outcome::BadRequest);
        }
    }
}
