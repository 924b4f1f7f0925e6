//! doctor
use crate::{error::CommandError, session::Session};
pub(crate) async fn run(_session: &Session) -> Result<u8, CommandError> {
    Ok(0)
}
