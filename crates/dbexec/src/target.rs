//! What the user may write as TARGET.

use secrecy::SecretString;

/// A target as typed on the command line; see `cli.md`.
#[derive(Debug, Clone)]
pub enum TargetSpec {
    /// `container:NAME[/db]`: name or id prefix of a container.
    Container {
        /// Name or id.
        name: String,
        /// Database of the first connection.
        database: Option<String>,
    },
    /// `project/service[/db]`: compose labels.
    Compose {
        /// Project label.
        project: String,
        /// Service label.
        service: String,
        /// Database of the first connection.
        database: Option<String>,
    },
    /// `postgres://…` or `postgresql://…`; may carry a password, hence a secret.
    Url(SecretString),
}
