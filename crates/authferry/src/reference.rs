//! The reference in `crates/authferry/README.md`, compared with the code.
//!
//! The tables of options are made from the arguments: `BLESS=1 cargo test -p authferry reference`
//! writes them. Environment variables, JSON fields and outcomes are looked up in the pages.

use std::{collections::BTreeSet, env, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};

use crate::args::Args;

/// The line that ends a table.
const END: &str = "<!-- end of the options -->";

#[test]
fn the_tables_of_options_are_those_of_the_program() {
    let found = read("README.md");
    let wanted = tables()
        .into_iter()
        .fold(found.clone(), |text, (name, table)| {
            let begin = format!("<!-- options of {name} -->");
            let (before, rest) = text.split_once(&begin).expect(&begin);
            let (_, after) = rest.split_once(END).expect(END);
            format!("{before}{begin}\n{table}{END}{after}")
        });
    if env::var_os("BLESS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        fs::write(file, wanted).expect("room");
        return;
    }
    assert!(found == wanted, "write the tables with BLESS=1:\n{wanted}");
}

/// The variables of a store are in the page of that store.
#[test]
fn each_environment_variable_is_documented() {
    let pages = ["authferry-aws", "authferry-azure", "authferry-vault"]
        .map(|store| read(&format!("../../backends/{store}/README.md")))
        .concat();
    let pages = read("README.md") + &pages;
    let is_name = |word: &&str| {
        let is_upper = |it: char| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_';
        word.len() > 3 && word.chars().all(is_upper)
    };
    let env = read("src/env.rs");
    let names: BTreeSet<&str> = env.split('"').skip(1).step_by(2).filter(is_name).collect();
    assert!(names.len() > 30, "{names:?}");
    // `env.rs` names Vault's variables without their prefix.
    let is_missing = |name: &&&str| {
        !["", "VAULT_"]
            .iter()
            .any(|prefix| pages.contains(&format!("`{prefix}{name}`")))
    };
    let missing: Vec<_> = names.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn each_json_field_and_outcome_is_documented() {
    let (page, mut names) = (read("README.md"), BTreeSet::new());
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // This test quotes the calls itself.
            if path.ends_with("reference.rs") {
                continue;
            }
            let source = fs::read_to_string(path).expect("a source");
            for call in [".fact(", "Ending::good(", "Ending::bad("] {
                names.extend(source.split(call).skip(1).filter_map(first_text));
            }
        }
    }
    assert!(names.len() > 30, "{names:?}");
    names.retain(|name| !page.contains(&format!("`{name}`")));
    assert!(names.is_empty(), "{names:?}");
}

/// Returns the first or second argument of a call, if that is a text.
fn first_text(arguments: &str) -> Option<String> {
    let (code, rest) = arguments.split_once('"')?;
    let is_first =
        code.trim().is_empty() || code.trim_end().ends_with(',') && code.matches(',').count() == 1;
    is_first.then(|| rest.split('"').next().unwrap_or_default().to_owned())
}

fn read(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(file).expect(name)
}

/// Returns the table of each command, and of the options that every command has.
fn tables() -> Vec<(String, String)> {
    let mut program = Args::command();
    program.build();
    let mut tables = vec![("every command".to_owned(), table(program.get_arguments()))];
    let mut commands: Vec<(String, &Command)> = visible(&program, "");
    while let Some((name, command)) = commands.pop() {
        let own = command.get_arguments().filter(|it| !it.is_global_set());
        tables.push((name.clone(), table(own)));
        commands.extend(visible(command, &name));
    }
    tables
}

fn visible<'a>(command: &'a Command, above: &str) -> Vec<(String, &'a Command)> {
    let commands = command.get_subcommands();
    let commands = commands.filter(|it| !it.is_hide_set() && it.get_name() != "help");
    commands
        .map(|it| (format!("{above} {}", it.get_name()).trim().to_owned(), it))
        .collect()
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let ours =
        |it: &&Arg| !it.is_hide_set() && !["help", "version"].contains(&it.get_id().as_str());
    let rows: String = arguments.filter(ours).map(row).collect();
    if rows.is_empty() {
        "No options.\n".to_owned()
    } else {
        format!("| option | default | meaning |\n|---|---|---|\n{rows}")
    }
}

fn row(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default();
    let value = match (argument.get_action().takes_values(), values.first()) {
        (true, Some(name)) => name.to_string(),
        (true, None) => argument.get_id().as_str().to_uppercase(),
        (false, _) => String::new(),
    };
    let name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long} {value}"),
        (None, Some(long)) => format!("--{long} {value}"),
        (_, None) => value,
    };
    let defaults = argument.get_default_values().first();
    let default = defaults.filter(|_| argument.get_action().takes_values());
    let default = default.map(|it| format!("`{}`", it.to_string_lossy()));
    let help = argument.get_help().map(ToString::to_string);
    format!(
        "| `{}` | {} | {} |\n",
        name.trim().replace('|', "\\|"),
        default.unwrap_or_default(),
        help.unwrap_or_default()
            .replace('|', "\\|")
            .replace('\n', " ")
    )
}
