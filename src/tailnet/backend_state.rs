//! tailscaled's own states (ipn/backend.go), by number as the bus has them and by name as `status` does.
#![forbid(unsafe_code)]

/// What tailscaled says of itself (ipn/backend.go, `State`), without 1 (`InUseOtherUser`), which reads as unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackendState {
    Nothing,
    NeedsLogin,
    NeedsApproval,
    Stopped,
    Starting,
    Running,
}

/// From the number in a notification of the bus.
pub(super) fn of_number(number: i64) -> Option<BackendState> {
    Some(match number {
        0 => BackendState::Nothing,
        2 => BackendState::NeedsLogin,
        3 => BackendState::NeedsApproval,
        4 => BackendState::Stopped,
        5 => BackendState::Starting,
        6 => BackendState::Running,
        _ => return None,
    })
}

/// From the name in `status`.
pub(super) fn of_name(name: &str) -> Option<BackendState> {
    Some(match name {
        "NoState" => BackendState::Nothing,
        "NeedsLogin" => BackendState::NeedsLogin,
        "NeedsMachineAuth" => BackendState::NeedsApproval,
        "Stopped" => BackendState::Stopped,
        "Starting" => BackendState::Starting,
        "Running" => BackendState::Running,
        _ => return None,
    })
}
