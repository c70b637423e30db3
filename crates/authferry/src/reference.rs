//! The option tables of `crates/authferry/README.md`, made from the arguments.
//!
//! `BLESS=1 cargo test -p authferry reference` writes them.

use std::{env, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};

use crate::args::Args;

/// The line that ends a table.
const END: &str = "<!-- end of the options -->";

#[test]
fn the_tables_of_options_are_those_of_the_program() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let found = fs::read_to_string(&file).expect("a reference");
    let wanted = tables()
        .into_iter()
        .fold(found.clone(), |text, (name, table)| {
            let begin = format!("<!-- options of {name} -->");
            let (before, rest) = text.split_once(&begin).expect(&begin);
            let (_, after) = rest.split_once(END).expect(END);
            format!("{before}{begin}\n{table}{END}{after}")
        });
    if env::var_os("BLESS").is_some() {
        fs::write(&file, wanted).expect("room");
        return;
    }
    assert!(found == wanted, "write the tables with BLESS=1:\n{wanted}");
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
