//! Proof that a backup restores: all of it into a throw-away server, compared with what was
//! attested, and a record of that beside the manifest.

mod amcheck;
mod checks;
mod record;
mod run;
mod server;
mod shelf;

pub use amcheck::AmcheckProof;
pub use checks::CheckProof;
pub use record::{DatabaseProof, Proof, ProofResult, ProofSummary};
pub use run::{ProveOptions, prove};
pub use server::{SandboxNeeds, sandbox_needs};

pub(crate) use shelf::{check_proof, is_proof_name, newest_summary};
