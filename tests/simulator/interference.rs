//! People, caches and old steps that interfere without authferry.

use crate::judge::AllowedChange;
use crate::story::Story;

impl Story {
    /// A cache or an old step puts an earlier auth file into a home.
    pub(crate) fn old_file(&mut self) {
        let old = self.cached[self.random.below(self.cached.len())];
        let machine = self.random.below(2);
        let live = self.machine(machine).auth_file();
        // A login that a cache overwrites may be gone: only overwrite files that exist elsewhere as
        // well.
        let elsewhere = live.is_none_or(|live| {
            !self.provider.is_live(live) || self.elsewhere(machine).contains(&live)
        });
        if elsewhere {
            let text = self.provider.auth_file(old);
            self.make_codexes_drop(machine);
            self.machine(machine).write(&text, true);
            self.disturbed.insert(machine);
            self.note(
                "old file",
                format!("machine {machine}: a cache brings {old}"),
            );
        }
    }

    /// A person logs in again and reseeds.
    pub(crate) fn reseed(&mut self) -> Result<(), String> {
        let new = self.provider.login('a', self.opaque);
        let text = self.provider.auth_file(new);
        let before = self.locations();
        if self.random.below(2) == 0 {
            let seeded = self.call(0, |world, it| world.seed(&text, it));
            self.note("reseed", format!("seed --replace with {new}: {seeded}"));
            return self.judge(&before, AllowedChange::Any, None);
        }
        let held = self.world.stored();
        self.given_up.extend(held);
        self.world.put_by_hand(&text);
        self.note("put by hand", format!("{new} is put over {held:?} by hand"));
        Ok(())
    }

    /// A person changes the store's file or removes a receipt, or another person's login comes into
    /// a home.
    pub(crate) fn interfere(&mut self) {
        match self.random.below(3) {
            0 => {
                self.world.touch();
                self.unstamped = self.world.stored();
                self.note("touch", "the stamp of the store's login is lost".to_owned());
            }
            1 => {
                let machine = self.random.below(2);
                self.machine(machine).forget_receipt();
                self.note(
                    "receipt lost",
                    format!("machine {machine} loses its receipt"),
                );
            }
            _ => {
                let hers = self.provider.login('b', self.opaque);
                let mut busy = self.sessions.iter().map(|it| it.machine);
                let machine = busy.next_back().unwrap_or(0);
                let held = self.machine(machine).auth_file();
                let elsewhere = held.is_none_or(|held| {
                    !self.provider.is_live(held) || self.elsewhere(machine).contains(&held)
                });
                if elsewhere {
                    let text = self.provider.auth_file(hers);
                    self.make_codexes_drop(machine);
                    self.machine(machine).write(&text, false);
                    self.disturbed.insert(machine);
                    self.note("other person", format!("machine {machine}: hers, {hers}"));
                }
            }
        }
    }
}
