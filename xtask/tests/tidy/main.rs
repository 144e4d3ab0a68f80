//! The rules of STYLE.md and ARCHITECTURE.md that a program can check, as tests.
//!
//! Each check is a small function that takes text and gives complaints; beside it stand tests on bad examples, so that a
//! check which can no longer fail is noticed. Here they meet the repository.

mod crates;
mod example;
mod links;
mod profiles;
mod text;
mod tree;

use self::tree::{File, cargo, files, metadata, read};

/// Fails with all complaints and what to do about them.
fn tidy(complaints: &[String], what_to_do: &str) {
    assert!(complaints.is_empty(), "{}\n{what_to_do}", complaints.join("\n"));
}

/// Complaints about each file that ends so.
fn each(ending: &str, check: impl Fn(&File) -> Vec<String>) -> Vec<String> {
    files().iter().filter(|file| file.path.ends_with(ending)).flat_map(check).collect()
}

#[test]
fn every_source_file_opens_with_its_purpose() {
    tidy(&each(".rs", text::opening), "Begin it with `//!`: its purpose, its invariants.");
}

#[test]
fn no_source_file_is_longer_than_800_lines() {
    tidy(&each(".rs", text::length), "Split it by what each part owns.");
}

#[test]
fn unsafe_code_lives_in_drivers_only() {
    tidy(&each(".rs", text::unsafety), "Move it to crates/drivers, or do without.");
}

#[test]
fn nothing_is_left_for_later() {
    tidy(&each(".rs", text::left_for_later), "Do it now, or open an issue and take the words out.");
}

#[test]
fn types_are_named_by_what_they_are() {
    tidy(&each(".rs", text::empty_names), "Use a word of the method, or of the field.");
}

#[test]
fn no_example_in_the_docs_goes_unrun() {
    let what_to_do = "The gate runs no doc tests: label the block (```text), or make it a test.";
    tidy(&each(".rs", text::doc_tests), what_to_do);
}

#[test]
fn links_between_pages_lead_somewhere() {
    let files = files();
    let pages = files.iter().filter(|file| file.path.ends_with(".md"));
    let complaints: Vec<String> = pages.flat_map(|page| links::dead(page, &files)).collect();
    tidy(&complaints, "Name a file beside the page, and a heading as it stands there.");
}

#[test]
fn no_line_has_tabs_or_trailing_blanks() {
    tidy(&each("", text::blanks), "Indent by blanks; end lines at their last letter.");
}

#[test]
fn no_file_knows_one_machine_or_registry() {
    tidy(&each("", text::places), "Name neither: the repository must build anywhere.");
}

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let what_to_do =
        "ARCHITECTURE.md draws the arrows. Turn the dependency round, or move the code.";
    tidy(&crates::arrows(&metadata()), what_to_do);
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    let manifests: Vec<File> =
        files().into_iter().filter(|file| file.path.ends_with("/Cargo.toml")).collect();
    assert!(manifests.len() >= 2, "crates were found");
    let complaints: Vec<String> = manifests.iter().flat_map(crates::lints).collect();
    tidy(&complaints, "Add to its manifest:\n[lints]\nworkspace = true");
}

#[test]
fn no_shipped_crate_can_have_planted_bugs() {
    let complaints = each("Cargo.toml", crates::planted);
    tidy(
        &complaints,
        "Only `decide` and `sim` have the feature `planted`, and nothing turns it on by itself.",
    );
}

#[test]
fn decide_depends_on_what_its_list_says() {
    let tree = cargo(&["tree", "-p", "decide", "-e", "normal", "--prefix", "none"]);
    let complaints = crates::dependencies(&tree, &read("crates/decide/dependencies.txt"));
    let what_to_do = "If the change is wanted, the list is what this prints (say in the commit what it saves):\n\
                      cargo tree -p decide -e normal --prefix none | cut -d' ' -f1 | sort -u | grep -vx decide";
    tidy(&complaints, what_to_do);
}

#[test]
fn decide_never_depends_on_the_world() {
    let tree = cargo(&["tree", "-p", "decide", "-e", "normal", "--prefix", "none"]);
    tidy(
        &crates::world(&tree),
        "decide has no clock, no I/O, no chance of its own: do it in the agent.",
    );
}

#[test]
fn every_test_binary_belongs_to_exactly_one_profile() {
    let complaints = profiles::check(&read(".config/nextest.toml"), &metadata(), &files());
    let what_to_do = "A binary that needs root, QEMU or namespaces is named in both filters of \
                      .config/nextest.toml; any other in neither.";
    tidy(&complaints, what_to_do);
}

#[test]
fn the_example_config_shows_every_setting_with_its_default() {
    let complaints = example::check(&read("packaging/evenkeel.toml"));
    tidy(&complaints, "Correct packaging/evenkeel.toml: it is what operators copy.");
}
