//! The tailnet: started, watched and ended by us, and what is known of it.
//!
//! Everybody else reads one `watch` of [`State`]; only supervisor and login write it.
#![forbid(unsafe_code)]

pub mod explain;
mod netmap;
pub mod oauth;
mod state;
mod version;

pub use self::explain::{Advice, Fault};
pub use self::netmap::{Cover, Dns, Nameserver, Netmap, Peer};
pub use self::state::{Node, Phase, State};
pub use self::version::Version;
