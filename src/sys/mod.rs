//! Raw descriptors: sockets, pipes, limits. The only module that may hold `unsafe`.
//!
//! It knows the kernel and nothing of protocols, policy or settings.

#[cfg_attr(not(target_os = "linux"), path = "pipe_unsupported.rs")]
mod pipe;
mod queue;
mod stream;
mod tune;

pub use pipe::Pipe;
pub use queue::unacked;
pub use stream::Stream;
pub use tune::tune;
