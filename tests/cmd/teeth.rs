//! Cases that must fail: they show that the other cases can fail.

use std::{fs, path::Path, sync::Arc};

use libtest_mimic::{Failed, Trial};

use crate::{case::Case, logins, play, scene::SCENES, stage::Props};

/// The name, the case, and a part of the expected failure.
const FAILING: &[(&str, &str, &str)] = &[
    (
        "another_message",
        "args = ['status']\nstatus = 125\nstderr = '''\nerror: [..] holds no login\n'''",
        "--- stderr is\nerror: file://[STORE]/login.json holds no login yet",
    ),
    (
        "another_exit_code",
        "args = ['status']\nstderr = '''\nerror: [..]\n\nhint: [..]\n'''",
        "--- status is 125, not 0",
    ),
    (
        "a_store_that_was_written_to",
        "args = ['-q', 'seed', '[LOGINS]/login-1']",
        "--- store/login.json was created",
    ),
    (
        "a_file_that_was_placed",
        "scene = ['seeded login-1']\nargs = ['-q', 'restore']\nafter = { receipt = 'written' }",
        "--- home/auth.json was created",
    ),
    (
        "the_same_bytes_rewritten",
        "scene = ['seeded login-1', 'auth-file login-1']\nargs = ['-q', 'run', 'codex']
codex = 'cp [LOGINS]/login-1 $CODEX_HOME/auth.json'",
        "--- home/auth.json was rewritten with the same content",
    ),
    (
        "another_mode",
        "args = ['-q', 'run', 'codex']\nscene = ['seeded login-1']
codex = 'chmod 640 [STORE]/login.json.meta'",
        "--- store/login.json.meta has another mode",
    ),
    (
        "another_content",
        "args = ['-q', 'seed', '[LOGINS]/login-1']\nafter = { store = 'login-2' }",
        "--- store/login.json is not Holds(\"login-2\")",
    ),
    (
        "an_unexpected_rescue",
        "scene = ['seeded login-1']\nargs = ['-q', 'seed', '--replace', '[LOGINS]/login-2']
after = { store = 'login-2' }",
        "--- rescue/[..].json was created",
    ),
    (
        "a_missing_rescue",
        "args = ['-q', 'seed', '[LOGINS]/login-1']
after = { store = 'login-1', rescued = ['login-2'] }",
        "--- rescue has no new file with login-2",
    ),
    (
        "a_token_on_stdout",
        "scene = ['seeded login-1']\nargs = ['-q', 'run', 'codex']
codex = 'sed -n s/.*refresh_token//p $CODEX_HOME/auth.json'\nstdout = '''\n[..]\n'''",
        "--- a part of a login is in stdout: ",
    ),
    (
        "a_token_next_to_the_login",
        "scene = ['seeded login-1']\nargs = ['-q', 'run', 'codex']
codex = 'cp $CODEX_HOME/auth.json [STORE]/copy'",
        "--- a part of a login is in store/copy: ",
    ),
    (
        "a_token_in_the_report",
        "scene = ['seeded login-1']\nargs = ['-q', 'run', 'codex']
codex = 'cp $CODEX_HOME/auth.json report.json'",
        "--- a part of a login is in report: ",
    ),
];

/// One test per failing case, and one for the list of steps and logins in the README.
pub(crate) fn trials(props: &Arc<Props>, folder: &Path) -> Vec<Trial> {
    let failing = FAILING.iter().map(|(name, case, expected)| {
        let props = Arc::clone(props);
        let name = format!("teeth/{name}");
        Trial::test(name, move || fails(&props, case, expected))
    });
    let readme = folder.join("README.md");
    let listed = Trial::test("teeth/the_readme_is_complete", move || is_complete(&readme));
    failing.chain([listed]).collect()
}

fn fails(props: &Props, case: &str, expected: &str) -> Result<(), Failed> {
    let case: Case = toml::from_str(&format!("about = ''\n{case}"))?;
    let Err(failed) = play::judge(props, &case) else {
        return Err("it passed".into());
    };
    let text = failed.message().unwrap_or_default();
    let parts: Vec<_> = expected.split("[..]").collect();
    if parts.iter().all(|part| text.contains(part)) {
        Ok(())
    } else {
        Err(format!("it failed in another way: {text}").into())
    }
}

fn is_complete(readme: &Path) -> Result<(), Failed> {
    let readme = fs::read_to_string(readme)?;
    let scenes = SCENES.iter().map(|(name, _)| *name);
    for name in scenes.chain(logins::all().map(|(name, _)| name)) {
        let is_there = |end| readme.contains(&format!("`{name}{end}"));
        if !is_there('`') && !is_there(' ') {
            return Err(format!("the list lacks {name}").into());
        }
    }
    Ok(())
}
