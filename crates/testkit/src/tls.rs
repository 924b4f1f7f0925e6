//! A certificate authority with a server's and a client's certificate, and a server that insists
//! on them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::container::{PgContainer, PgContainerBuilder};

/// Files of one authority.
#[derive(Debug)]
pub struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    /// Makes an authority, a certificate for a server at `localhost` and one for a client whose
    /// common name is `user`.
    ///
    /// # Errors
    /// When a key or a file cannot be made.
    pub fn make(user: &str) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("pgstow-tls-").tempdir();
        let dir = dir.map_err(|error| error.to_string())?;
        let made = Self { dir };
        made.write_all(user).map_err(|error| error.to_string())?;
        Ok(made)
    }

    fn write_all(&self, user: &str) -> Result<(), Box<dyn std::error::Error>> {
        let mut authority = CertificateParams::new(Vec::<String>::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // A name of its own: of two authorities with one name the wrong one's signature is tried.
        let name = crate::container::unique_name("authority");
        authority.distinguished_name.push(DnType::CommonName, name);
        let authority_key = KeyPair::generate()?;
        self.write(
            "ca.crt",
            &authority.self_signed(&authority_key)?.pem(),
            0o644,
        )?;
        let issuer = Issuer::new(authority, authority_key);
        for (file, name, alternative) in [
            ("server", "localhost", vec!["localhost".to_owned()]),
            ("client", user, Vec::new()),
        ] {
            let mut params = CertificateParams::new(alternative)?;
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.serial_number = Some(SerialNumber::from(if file == "server" { 2 } else { 3 }));
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?;
            self.write(&format!("{file}.crt"), &certificate.pem(), 0o644)?;
            self.write(&format!("{file}.key"), &key.serialize_pem(), 0o600)?;
        }
        for (file, revoked) in [("none.crl", None), ("server.crl", Some(2))] {
            let revoked = revoked.map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            });
            let list = CertificateRevocationListParams {
                this_update: date_time_ymd(2020, 1, 1),
                next_update: date_time_ymd(4000, 1, 1),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: revoked.into_iter().collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            self.write(file, &list.signed_by(&issuer)?.pem()?, 0o644)?;
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> std::io::Result<()> {
        let path = self.path(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    }

    /// Path of `ca.crt`, `server.crt`, `server.key`, `client.crt`, `client.key`, or of a revocation
    /// list: `none.crl`, or `server.crl` that revokes the server's certificate.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server that speaks TLS alone over the network and asks for a client certificate as well
    /// as a password.
    ///
    /// # Errors
    /// What the engine or the server said.
    pub fn server(&self, builder: PgContainerBuilder) -> Result<PgContainer, String> {
        let dir = self.dir.path().display().to_string();
        let container = builder.publish(0).mount(&dir, "/certs").start()?;
        // The server insists on owning its key.
        container.exec(&[
            "sh", "-c",
            "cp /certs/ca.crt /certs/server.crt /certs/server.key \"$PGDATA\"/ \
             && chown postgres \"$PGDATA\"/server.key && chmod 600 \"$PGDATA\"/server.key \
             && sed -i 's/^host all all all.*//' \"$PGDATA\"/pg_hba.conf \
             && echo 'hostssl all all all scram-sha-256 clientcert=verify-ca' >> \"$PGDATA\"/pg_hba.conf",
        ])?;
        container.psql(
            "postgres",
            "alter system set ssl = on; alter system set ssl_ca_file = 'ca.crt'; select pg_reload_conf();",
        )?;
        Ok(container)
    }
}
