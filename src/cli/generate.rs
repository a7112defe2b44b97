//! What is installed beside the program: its manual page, and completions for shells.
//!
//! Both come from the arguments as clap knows them, so that neither lags behind. What arguments do not tell, as
//! signals, files and exit codes, stands in `manual.man`, written as man(7) wants it, around the place where they go.

use std::io::Write;

use anyhow::Context;
use clap::{Command, Subcommand};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// The page from its description on.
const PAGE: &str = include_str!("manual.man");
/// Where options and commands go.
const ARGUMENTS: &str = ".\\\" The arguments.\n";

#[derive(Subcommand)]
pub enum Generated {
    /// The manual page
    Manual,
    /// The completions of a shell
    Completions { shell: Shell },
}

/// Prints what is asked for, of the command that is given.
pub fn run(what: Generated, command: &Command, out: &mut impl Write) -> anyhow::Result<()> {
    let mut command = visible(command);
    let mut text = Vec::new();
    match what {
        Generated::Manual => manual(command, &mut text)?,
        Generated::Completions { shell } => {
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut text);
        }
    }
    out.write_all(&text)?;
    Ok(())
}

/// Without the subcommands that help does not list; completions would offer them.
fn visible(command: &Command) -> Command {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .args_conflicts_with_subcommands(command.is_args_conflicts_with_subcommands_set())
        .args(command.get_arguments())
        .subcommands(shown)
}

/// All of it on one page: who looks for a subcommand looks here first.
fn manual(command: Command, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let (before, after) = PAGE.split_once(ARGUMENTS).context("the page has no place for the arguments")?;
    let (name, version) = (command.get_name(), command.get_version().unwrap_or_default());
    // Without a date: the same program gives the same page.
    writeln!(out, ".TH {} 1 \"\" \"{name} {version}\"", name.to_uppercase())?;
    let page = Man::new(command.clone());
    page.render_name_section(out)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    for usage in every(&command).into_iter().flat_map(usages) {
        synopsis.control("TP", []).text([bold(usage)]);
    }
    synopsis.to_writer(out)?;
    out.write_all(before.as_bytes())?;
    page.render_options_section(out)?;
    Roff::new().control("SH", ["COMMANDS"]).to_writer(out)?;
    for command in every(&command).into_iter().skip(1) {
        describe(command, out)?;
    }
    out.write_all(after.as_bytes())?;
    Ok(())
}

/// A command and all below it.
fn every(command: &Command) -> Vec<&Command> {
    std::iter::once(command).chain(command.get_subcommands().flat_map(every)).collect()
}

/// How it is called, one line for each way.
fn usages(command: &Command) -> Vec<String> {
    let usage = command.clone().render_usage().to_string();
    usage.lines().map(|line| line.trim_start_matches("Usage:").trim().to_owned()).collect()
}

fn describe(command: &Command, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut text = Roff::new();
    text.control("SS", [command.get_bin_name().unwrap_or_else(|| command.get_name())]);
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        text.text([roman(format!("{about}."))]);
    }
    text.to_writer(out)?;
    let mut options = Vec::new();
    Man::new(command.clone()).render_options_section(&mut options)?;
    // clap makes a section of them; here they are a part of the command's.
    let options = String::from_utf8(options)?;
    let (_, options) = options.split_once(".SH OPTIONS\n").unwrap_or_default();
    out.write_all(options.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        process::{Command as Program, Output, Stdio},
    };

    use super::*;

    fn generated(what: Generated) -> String {
        let mut text = Vec::new();
        run(what, &crate::cli::command(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// What a program says of a text; nothing where the program is not installed.
    fn judge(program: &str, arguments: &[&str], text: &str) -> Option<Output> {
        let started = Program::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => panic!("{program}: {error}"),
        };
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        Some(child.wait_with_output().unwrap())
    }

    #[test]
    fn the_manual_has_every_command_and_option_once_and_nothing_that_is_hidden() {
        let page = generated(Generated::Manual);
        for wanted in
            [".TH AKUBRA 1", ".SH OPTIONS\n", ".SH COMMANDS\n", ".SS \"akubra locate\"\n", ".SH SIGNALS\n"]
        {
            assert_eq!(page.matches(wanted).count(), 1, "{wanted}");
        }
        for option in ["upgrade", "daemon", "test", "host"] {
            assert!(page.contains(&format!("\\-\\-{option}")), "{option}");
        }
        assert!(!page.contains("nocapture") && !page.contains("akubra generate"));
    }

    #[test]
    fn the_manual_is_a_page_without_mistakes() {
        let page = generated(Generated::Manual);
        if let Some(output) = judge("groff", &["-man", "-Tutf8", "-ww", "-z"], &page) {
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        }
    }

    #[test]
    fn completions_are_scripts_that_know_what_help_lists() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = generated(Generated::Completions { shell });
            assert!(script.contains("locate") && !script.contains("generate"), "{shell}: {script}");
            let output = judge(&shell.to_string(), &["-n"], &script);
            assert!(output.is_none_or(|output| output.status.success()), "{shell}");
        }
    }
}
