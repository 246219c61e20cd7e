//! Every configuration in the user guide is one that `underpass check` takes.

use std::path::PathBuf;

use mantra_macros::req_test;
use underpass_tests::proxy::{run, scratch};

fn pages() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let entries = std::fs::read_dir(folder).expect("docs/guide");
    let mut pages: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    pages
}

#[req_test("REQ-EDGE-008")]
#[test]
fn every_example_of_the_guide_is_a_valid_file() {
    let mut checked = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for example in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let file = scratch("toml");
            std::fs::write(&file, example).unwrap();
            let output = run(&["check", "--config", &file.to_string_lossy()]);
            std::fs::remove_file(&file).unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {said}\n{example}", page.display());
            assert!(!said.contains("no route leads"), "{}: {said}\n{example}", page.display());
            checked += 1;
        }
    }
    assert!(checked >= 3, "{checked} examples");
}
