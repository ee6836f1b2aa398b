//! Raw descriptors and processes: sockets, pipes, limits. The only crate that may hold `unsafe`.
//!
//! It knows the kernel and nothing of protocols, policy or settings.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "tailrace runs on Linux only: epoll, splice(2), netfilter and /proc are what it is built on"
);

mod closing_sockets;
mod command;
mod dial;
mod exiting;
pub mod filtered_process;
pub mod limits;
mod listen;
pub mod memory;
mod memory_folder;
mod original_dst;
mod peer_left;
mod pipe;
mod process;
mod program;
mod queue;
mod route;
pub mod seccomp;
pub mod signals;
pub mod sigpipe;
mod socket_owner;
pub mod stat;
mod stream;
mod stream_io;
mod tune;
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
pub use socket_owner::{SocketOwner, SocketOwners, socket_owner};
pub use stream::{ReadyGuard, Stream};
pub use tune::tune;
pub use unreadable::unreadable_copy;
