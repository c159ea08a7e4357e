//! A configuration that is reloaded because its file changed, in each way in which files change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::backend::Backend;
use crate::harness::Gateway;
use crate::reload::{File, SUCCESSFUL, accepting, echo, is_reloaded, status_of_8};

const ON: &str = "reload_on_change = true";

fn text(backend: &Backend, versions: &str) -> String {
    File { gateway: ON, ..accepting(backend.address(), versions) }.text()
}

fn is_looked_at(line: &Value) -> bool {
    line["message"] == "the configuration file has nothing new"
}

/// Changes the file and waits until the change is in force; it is the `nth`.
fn changed(gateway: &Gateway, nth: usize, change: impl FnOnce(&Path)) {
    change(&gateway.path());
    gateway.wait_for_nth_log(nth, is_reloaded);
    assert_eq!(gateway.count_logged(is_reloaded), nth);
}

fn rename_over(path: &Path, text: String) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

#[test]
fn a_file_that_is_written_or_renamed_over_is_reloaded_and_a_touch_is_not() {
    let backend = Backend::echo();
    let gateway = Gateway::start_from(&text(&backend, "13"));
    let (mut tunnel, _) = gateway.open();
    assert_eq!(status_of_8(&gateway), 426);
    changed(&gateway, 1, |path| fs::write(path, text(&backend, "13, 8")).unwrap());
    assert_eq!(status_of_8(&gateway), 101);
    changed(&gateway, 2, |path| rename_over(path, text(&backend, "13")));
    assert_eq!(status_of_8(&gateway), 426);
    // What came by a rename is watched as well.
    changed(&gateway, 3, |path| fs::write(path, text(&backend, "8, 13")).unwrap());
    assert_eq!(status_of_8(&gateway), 101);

    // More than once, since the look that follows each reload may be still to come.
    for _ in 0..3 {
        let looked = gateway.count_logged(is_looked_at);
        let file = fs::File::options().append(true).open(gateway.path()).unwrap();
        file.set_modified(std::time::SystemTime::now()).unwrap();
        drop(file);
        gateway.wait_for_nth_log(looked + 1, is_looked_at);
    }
    assert_eq!(gateway.count_logged(is_reloaded), 3);
    echo(&mut tunnel, b"through all of it");
}

#[test]
fn a_config_map_that_is_swapped_is_reloaded() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, text: String| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("wsgate.toml"), text).unwrap();
    };
    version("..2024_1", text(&backend, "13"));
    symlink("..2024_1", folder.path().join("..data")).unwrap();
    symlink("..data/wsgate.toml", folder.path().join("wsgate.toml")).unwrap();
    let root = folder.path().to_owned();
    let gateway = Gateway::run(folder);
    assert_eq!(status_of_8(&gateway), 426);
    for (nth, (versions, expected)) in [("13, 8", 101), ("13", 426), ("8", 101)].into_iter().enumerate() {
        let (old, new) = (root.join(format!("..2024_{}", nth + 1)), root.join(format!("..2024_{}", nth + 2)));
        // As the kubelet does it: a new folder, a link to it beside, the link renamed, the old folder removed.
        fs::create_dir(&new).unwrap();
        fs::write(new.join("wsgate.toml"), text(&backend, versions)).unwrap();
        symlink(new.file_name().unwrap(), root.join("..data_tmp")).unwrap();
        changed(&gateway, nth + 1, |_| {
            fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
            fs::remove_dir_all(old).unwrap();
        });
        assert_eq!(status_of_8(&gateway), expected);
    }
}

#[test]
fn a_file_behind_a_link_is_watched_where_it_lies_even_when_its_folder_goes_and_comes() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("conf");
    fs::create_dir(&conf).unwrap();
    fs::write(conf.join("real.toml"), text(&backend, "13")).unwrap();
    symlink("conf/real.toml", folder.path().join("wsgate.toml")).unwrap();
    let gateway = Gateway::run(folder);
    changed(&gateway, 1, |_| fs::write(conf.join("real.toml"), text(&backend, "13, 8")).unwrap());
    changed(&gateway, 2, |_| rename_over(&conf.join("real.toml"), text(&backend, "13")));
    // Whether the gap is seen is a matter of time; that it ends is not.
    changed(&gateway, 3, |_| {
        fs::remove_dir_all(&conf).unwrap();
        fs::create_dir(&conf).unwrap();
        fs::write(conf.join("real.toml"), text(&backend, "8")).unwrap();
    });
    gateway.wait_for_metric(SUCCESSFUL, 1.0);
    assert_eq!(status_of_8(&gateway), 101);
}

#[test]
fn a_bad_change_is_refused_once_and_its_repair_is_seen() {
    let backend = Backend::echo();
    let gateway = Gateway::start_from(&text(&backend, "13"));
    let refused = |line: &Value| line["code"] == "unserved-version";
    fs::write(gateway.path(), text(&backend, "14")).unwrap();
    gateway.wait_for_log(refused);
    gateway.wait_for_metric(SUCCESSFUL, 0.0);
    let looked = gateway.count_logged(is_looked_at);
    rename_over(&gateway.path(), text(&backend, "14"));
    gateway.wait_for_nth_log(looked + 1, is_looked_at);
    assert_eq!(gateway.count_logged(refused), 1);
    // Back to what was in force is news too, or the gauge would stay at 0.
    changed(&gateway, 1, |path| rename_over(path, text(&backend, "13")));
    gateway.wait_for_metric(SUCCESSFUL, 1.0);
}

#[test]
fn the_watch_is_turned_on_and_off_by_a_reload() {
    let backend = Backend::echo();
    let off = |versions: &str| accepting(backend.address(), versions).text();
    let gateway = Gateway::start_from(&off("13"));
    assert_eq!(watches(&gateway), 0);
    changed(&gateway, 1, |path| {
        fs::write(path, text(&backend, "13")).unwrap();
        gateway.signal(Signal::HUP);
    });
    gateway.wait_for_log(is_looked_at);
    assert_eq!(watches(&gateway), 1);
    changed(&gateway, 2, |path| fs::write(path, off("13, 8")).unwrap());
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while watches(&gateway) > 0 {
        assert!(std::time::Instant::now() < until, "the watch stays");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn watches(gateway: &Gateway) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target == Path::new("anon_inode:inotify")).count()
}
