use super::*;

fn proof(differences: usize) -> Proof {
    let difference = |number: usize| Difference {
        object: format!("table s.t{number}"),
        expected: "2 rows".to_owned(),
        found: "1 row".to_owned(),
    };
    let database = DatabaseProof {
        name: "shop".to_owned(),
        attested: true,
        comparison: Comparison {
            tables_equal: 3,
            tables_total: 3 + differences as u64,
            differences: (0..differences).map(difference).collect(),
            ..Comparison::default()
        },
        ..DatabaseProof::default()
    };
    let time: Timestamp = "2026-11-24T14:00:00Z".parse().unwrap();
    Proof {
        format_version: PROOF_VERSION,
        tool_version: "0".to_owned(),
        backup: BackupId::parse("20261124T130000Z-abcdef").unwrap(),
        manifest_sha256: "00".to_owned(),
        level: VerifyLevel::Restore,
        started_at: time,
        finished_at: time,
        place: "image postgres:17".to_owned(),
        server_version: "17.4".to_owned(),
        result: if differences == 0 {
            ProofResult::Passed
        } else {
            ProofResult::Failed
        },
        databases: vec![database.bounded()],
        globals: Vec::new(),
        checks: Vec::new(),
        warnings: Vec::new(),
    }
}

#[test]
fn a_record_is_known_by_its_name_and_bound_to_its_content_and_backup() {
    let proof = proof(2);
    let bytes = serde_json::to_vec(&proof).unwrap();
    let name = Proof::file_name(proof.finished_at, &bytes);
    assert!(name.starts_with("proof-20261124T140000Z-"), "{name}");
    assert!(storage::check_name(&name).is_ok());
    assert_eq!(parse(&proof.backup, &name, &bytes).unwrap(), proof);

    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(parse(&proof.backup, &name, &flipped).is_err(), "byte {at}");
    }
    let other = BackupId::parse("20261124T130000Z-abcdeg").unwrap();
    assert!(parse(&other, &name, &bytes).unwrap_err().contains("abcdef"));
    let mut newer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    newer["format_version"] = 2.into();
    let newer = serde_json::to_vec(&newer).unwrap();
    let name = Proof::file_name(proof.finished_at, &newer);
    assert!(
        parse(&proof.backup, &name, &newer)
            .unwrap_err()
            .contains("newer")
    );
}

#[test]
fn other_names_are_no_proofs() {
    for name in [
        "proof-20261124T140000Z-0123456789abcdef.json.tmp",
        "proof-20261124T140000Z-0123456789abcdeF.json",
        "proof-20261124T140000Z-0123.json",
        "proof-0123456789abcdef.json",
        "manifest.json",
        "proof-\u{fc}0261124T14000Z-0123456789abcdef.json",
    ] {
        assert!(parse_file_name(name).is_none(), "{name}");
    }
}

#[test]
fn what_is_wrong_is_summed_up_and_bounded() {
    let summary = proof(0).summary("f".to_owned());
    assert_eq!((summary.tables_equal, summary.tables_total), (3, 3));
    assert_eq!(
        (summary.result, summary.problem),
        (ProofResult::Passed, None)
    );

    let many = proof(KEPT_DIFFERENCES + 7);
    assert_eq!(
        many.databases[0].comparison.differences.len(),
        KEPT_DIFFERENCES
    );
    let problems = many.problems();
    assert_eq!(problems.len(), KEPT_DIFFERENCES + 1);
    assert_eq!(
        problems[0],
        (
            "table s.t0 (database \"shop\")".to_owned(),
            "1 row instead of 2 rows".to_owned()
        )
    );
    assert!(
        problems[KEPT_DIFFERENCES].1.starts_with("7 more"),
        "{problems:?}"
    );
    let summary = many.summary("f".to_owned());
    assert!(summary.problem.unwrap().starts_with("table s.t0"));
}

#[test]
fn an_unsound_index_fails_a_database() {
    let mut database = proof(0).databases.remove(0);
    assert!(database.passed());
    database.amcheck = Some(AmcheckProof {
        indexes: 1,
        problems: vec![Difference {
            object: "index s.i".to_owned(),
            expected: "sound".to_owned(),
            found: "ERROR: item order invariant violated".to_owned(),
        }],
        seconds: 0.1,
    });
    assert!(!database.passed());
}
