//! placeholder
#![forbid(unsafe_code)]
use crate::secret::Secret;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct OauthError;
impl OauthError {
    pub fn is_passing(&self) -> bool {
        false
    }
}
pub fn is_client_secret(_: &Secret) -> bool {
    false
}
pub async fn exchange(_: &Secret, _: &[String], _: Option<&str>) -> Result<Secret, OauthError> {
    Err(OauthError)
}
