use super::*;

#[test]
fn versions_of_releases_and_previews() {
    let debian = "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)";
    assert_eq!(parse_version(debian), Some((15, "15.13".to_owned())));
    assert_eq!(
        parse_version("postgres (PostgreSQL) 18beta1"),
        Some((18, "18beta1".to_owned()))
    );
    assert_eq!(
        parse_version("postgres (PostgreSQL) 9.6.24"),
        Some((9, "9.6.24".to_owned()))
    );
    assert_eq!(parse_version("postgres"), None);
}

#[test]
fn a_folder_without_the_server_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("initdb"), "").unwrap();
    fs::set_permissions(
        folder.path().join("initdb"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    assert_eq!(
        PgBinaries::in_folder(folder.path()),
        Err("has no postgres".to_owned())
    );
    let missing = folder.path().join("missing");
    assert_eq!(
        PgBinaries::in_folder(&missing),
        Err("no such folder".to_owned())
    );
}

#[test]
fn version_folders_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["9.6", "15", "16", "readme"] {
        fs::create_dir_all(folder.path().join(version).join("bin")).unwrap();
    }
    let pattern = format!("{}/*/bin", folder.path().display());
    let found: Vec<_> = expand(&pattern)
        .iter()
        .map(|f| f.parent().unwrap().file_name().unwrap().to_owned())
        .collect();
    assert_eq!(found, ["16", "15", "9.6"]);
}

#[test]
fn the_programs_of_this_machine_are_found() {
    let found = PgBinaries::find().unwrap();
    assert!(found.major() >= MIN_MAJOR);
    assert!(found.program("initdb").is_file());
}
