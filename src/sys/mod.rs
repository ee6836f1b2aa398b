//! Raw descriptors: sockets, pipes, limits. The only module that may hold `unsafe`.
//!
//! It knows the kernel and nothing of protocols, policy or settings.

mod stream;

pub use stream::Stream;
