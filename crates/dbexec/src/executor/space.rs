//! Free space of a file system.

use std::path::Path;

/// Reads what `df -Pk` prints about one directory: bytes that are available. The name of a device
/// or of a mount point may hold spaces, so the columns are found from the one that ends in `%`.
pub(crate) fn parse_df(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.lines().nth(1)?.split_whitespace().collect();
    let at = words.windows(4).position(|columns| {
        let [blocks, used, available, capacity] = columns else {
            return false;
        };
        let is_number = |word: &str| word.parse::<i64>().is_ok();
        let capacity = capacity.strip_suffix('%').is_some_and(is_number) || *capacity == "-";
        capacity
            && [blocks, used, available]
                .into_iter()
                .all(|word| is_number(word))
    })?;
    // Some systems show less than nothing when only root's reserve is left.
    let kib: i64 = words[at + 2].parse().ok()?;
    u64::try_from(kib.max(0)).ok()?.checked_mul(1024)
}

/// Bytes that are available to whom is not root, where a directory of this host lies.
pub(crate) fn free(directory: &Path) -> Option<u64> {
    if !directory.is_dir() {
        return None;
    }
    let space = rustix::fs::statvfs(directory).ok()?;
    space.f_bavail.checked_mul(space.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn df_of_several_systems() {
        let table = [
            (
                "Filesystem     1024-blocks     Used Available Capacity Mounted on\n\
                 overlay          102687672 41234567  56193841      43% /\n",
                Some(56_193_841 * 1024),
            ),
            (
                "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                 //nas/my share 100 20 80 20% /mnt/a b\n",
                Some(80 * 1024),
            ),
            (
                "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 100 103 -3 103% /\n",
                Some(0),
            ),
            ("df: .: No such file or directory\n", None),
            ("", None),
        ];
        for (text, free) in table {
            assert_eq!(parse_df(text), free, "{text}");
        }
    }

    #[test]
    fn free_space_of_this_host() {
        assert!(free(Path::new("/")).is_some());
        assert_eq!(free(Path::new("/none/such")), None);
    }
}
