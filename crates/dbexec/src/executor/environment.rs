//! The environment of one program: connection settings and credentials travel here and nowhere
//! else.

use secrecy::{ExposeSecret, SecretString};

use crate::{creds::DbCreds, executor::ConnectionSettings};

/// Variables of libpq and the programs that must not leak in from where a program runs.
pub(crate) const CLEARED: &[&str] = &[
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGSSLMODE",
    "PGREQUIRESSL",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLSNI",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGCHANNELBINDING",
    "PGGSSENCMODE",
    "PGKRBSRVNAME",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
    "PGCLIENTENCODING",
    "PGDATESTYLE",
    "PGTZ",
    "PGGEQO",
    "PGSSLNEGOTIATION",
    "PGCONNECT_TIMEOUT",
    "PSQLRC",
    "PSQL_HISTORY",
    "LC_ALL",
    "LANGUAGE",
    "PG_COLOR",
];

/// Environment of a program: name and value. `connection` is `None` for a run without a server;
/// `parameters` are the server's for its sessions, as `name=value`.
pub(crate) fn variables(
    connection: Option<(&DbCreds, &str)>,
    settings: &ConnectionSettings,
    parameters: &[&str],
) -> Vec<(String, SecretString)> {
    let mut list = Vec::new();
    let mut set = |name: &str, value: &str| {
        list.push((name.to_owned(), SecretString::from(value.to_owned())));
    };
    // English messages, whatever the locale: their words are judged.
    set("LC_ALL", "C");
    set("PGAPPNAME", &settings.application_name);
    let Some((creds, database)) = connection else {
        return list;
    };
    if let Some(host) = &creds.host {
        set("PGHOST", host);
    }
    set("PGPORT", &creds.port.to_string());
    set("PGUSER", &creds.user);
    // By environment the name is data: as an argument `host=…` would be a connection string.
    set("PGDATABASE", database);
    if let Some(password) = &creds.password {
        set("PGPASSWORD", password.expose_secret());
    }
    set(
        "PGCONNECT_TIMEOUT",
        &settings.connect_timeout.as_secs().max(2).to_string(),
    );
    // Otherwise times with a zone would be written as the server's or the role's setting says, and
    // two dumps of equal rows would differ.
    set("PGTZ", "UTC");
    let mut options = Vec::new();
    if creds
        .host
        .as_deref()
        .is_some_and(|host| !host.starts_with('/'))
    {
        // libpq has no variable for keepalives; the server's half notices a client that is gone.
        let seconds = settings.keepalives_idle.as_secs().max(1);
        options.push(format!("-c tcp_keepalives_idle={seconds}"));
    }
    let parameters = parameters.iter();
    options.extend(parameters.map(|parameter| format!("-c {parameter}")));
    if !options.is_empty() {
        set("PGOPTIONS", &options.join(" "));
    }
    let tls = &creds.tls;
    if let Some(mode) = tls.mode {
        set("PGSSLMODE", mode.as_str());
    }
    let files = [
        ("PGSSLROOTCERT", &tls.root_cert),
        ("PGSSLCERT", &tls.cert),
        ("PGSSLKEY", &tls.key),
        ("PGSSLCRL", &tls.crl),
    ];
    for (name, path) in files {
        if let Some(path) = path {
            set(name, &path.to_string_lossy());
        }
    }
    if let Some(binding) = &tls.channel_binding {
        set("PGCHANNELBINDING", binding);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::creds::TlsOptions;

    #[test]
    fn a_run_without_a_server_gets_no_credentials() {
        let settings = ConnectionSettings::new("r");
        let names: Vec<String> = variables(None, &settings, &[])
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["LC_ALL", "PGAPPNAME"]);
    }

    #[test]
    fn every_variable_that_is_set_is_also_cleared() {
        let creds = DbCreds {
            host: Some("h".to_owned()),
            port: 1,
            database: "d".to_owned(),
            user: "u".to_owned(),
            password: Some("p".into()),
            tls: TlsOptions {
                channel_binding: Some("require".to_owned()),
                ..Default::default()
            },
        };
        let settings = ConnectionSettings::new("r");
        for (name, _) in variables(Some((&creds, "d")), &settings, &["a=b"]) {
            assert!(CLEARED.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn options_of_the_server_are_put_together() {
        let options = |host: Option<&str>, parameters: &[&str]| {
            let creds = DbCreds {
                host: host.map(str::to_owned),
                port: 1,
                database: "d".to_owned(),
                user: "u".to_owned(),
                password: None,
                tls: TlsOptions::default(),
            };
            let mut settings = ConnectionSettings::new("r");
            settings.keepalives_idle = std::time::Duration::from_secs(9);
            variables(Some((&creds, "d")), &settings, parameters)
                .into_iter()
                .find(|(name, _)| name == "PGOPTIONS")
                .map(|(_, value)| value.expose_secret().to_owned())
        };
        assert_eq!(options(None, &[]), None);
        assert_eq!(options(Some("/tmp"), &[]), None);
        let idle = "-c tcp_keepalives_idle=9";
        assert_eq!(options(Some("h"), &[]).as_deref(), Some(idle));
        let one = options(None, &["a=b"]);
        assert_eq!(one.as_deref(), Some("-c a=b"));
        let all = options(Some("h"), &["a=b", "c=d"]);
        assert_eq!(all, Some(format!("{idle} -c a=b -c c=d")));
    }
}
