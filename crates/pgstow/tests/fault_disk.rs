//! A disk that gets full, a server that goes away, a store that is unsafe.

mod support;

use support::{backups, below, cli, fill};
use testkit::PgContainer;
use testkit::disk::SmallDisk;

#[test]
fn bar_04_a_full_disk_fails_the_run_and_leaves_earlier_backups_alone() {
    let container = PgContainer::start(17).unwrap();
    let disk = SmallDisk::mount(3_000).unwrap();
    let cli = cli().data_dir_at(&disk.join("data"));
    let target = container.target();
    // Done, with the warning that a disk of this size may not do.
    let run = cli.run(&["backup", &target, "--quiet"]).expect(3);
    assert!(run.stderr.contains("may not fit"), "{}", run.stderr);
    let earlier = backups(&cli);
    fill(&container, "postgres", 12_000);
    for _ in 0..6 {
        // Another place for the full disk each time.
        let ballast = disk.join("ballast");
        std::fs::write(
            &ballast,
            vec![1; usize::try_from(below(2_000_000)).unwrap()],
        )
        .unwrap();
        let run = cli.run(&["backup", &target, "--quiet"]).expect(20);
        assert!(run.stderr.contains("no space left"), "{}", run.stderr);
        std::fs::remove_file(&ballast).unwrap();
        assert_eq!(backups(&cli), earlier);
        assert_eq!(cli.backup_dirs().len(), 1, "partial files are left");
    }
    let _ = cli.run(&["verify", "--all", "--quiet"]).expect(0);
}
