//! Raw descriptors and processes: sockets, pipes, limits. The only crate that may hold `unsafe`.
//!
//! It knows the kernel and nothing of protocols, policy or settings.

#[cfg_attr(not(target_os = "linux"), path = "closing_sockets_unsupported.rs")]
mod closing_sockets;
mod command;
mod dial;
#[cfg_attr(not(target_os = "linux"), path = "exiting_unsupported.rs")]
mod exiting;
#[cfg(target_os = "linux")]
pub mod filtered_process;
pub mod limits;
mod listen;
#[cfg(target_os = "linux")]
pub mod memory;
#[cfg_attr(not(target_os = "linux"), path = "memory_folder_unsupported.rs")]
mod memory_folder;
mod original_dst;
mod peer_left;
#[cfg_attr(not(target_os = "linux"), path = "pipe_unsupported.rs")]
mod pipe;
mod process;
mod program;
mod queue;
mod route;
#[cfg(target_os = "linux")]
pub mod seccomp;
#[cfg(target_os = "linux")]
pub mod signals;
pub mod sigpipe;
#[cfg_attr(not(target_os = "linux"), path = "socket_owner_unsupported.rs")]
mod socket_owner;
pub mod stat;
mod stream;
mod stream_io;
mod tune;
#[cfg_attr(not(target_os = "linux"), path = "unreadable_unsupported.rs")]
mod unreadable;

pub use closing_sockets::closing_sockets;
pub use command::{Preparation, prepare};
pub use dial::{dial, dial_unix, may_mark};
pub use exiting::Exiting;
pub use listen::{Listener, bound_address, listen, listen_transparent};
pub use memory_folder::{
    ask_for_senders, close_to_own_user, enter_user_namespace, mount_memory_folder,
    receive_descriptor, send_descriptor,
};
pub use original_dst::{intercepted, original_dst, redirected};
pub use peer_left::peer_left;
pub use pipe::Pipe;
pub use process::{adopts_orphans, harden, inherited};
pub use program::{Descriptors, Program, programs, sees_other_users};
pub use queue::{unacked, unsent};
pub use route::has_route;
pub use socket_owner::{Owner, SocketOwners, socket_owner};
pub use stream::{Ready, Stream};
pub use tune::tune;
pub use unreadable::unreadable_copy;
