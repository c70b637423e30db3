//! The secrets of a vault, and the operations on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::{Rules, failure::Failure, random_hex};

/// The maximum rows of a page.
pub(super) const MAX_PAGE_ROWS: usize = 25;

/// The maximum length of a value, in bytes.
const MAX_VALUE_BYTES: usize = 25 * 1024;

/// The maximum number of tags of a version.
const MAX_TAGS: usize = 15;

/// How long a deleted secret can be recovered.
const RECOVERABLE_DAYS: i64 = 90;

/// One version of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its name: 32 hex digits, drawn at random.
    pub id: String,
    /// The value.
    pub value: String,
    /// The tags that its writer set.
    pub tags: BTreeMap<String, String>,
    /// Whether it can be read.
    pub enabled: bool,
    /// When it was written, in whole seconds.
    pub created: i64,
    updated: i64,
    content_type: Option<String>,
    /// When it really became visible.
    pub written: SystemTime,
}

/// Every secret of one vault.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// The versions of each, oldest first.
    live: BTreeMap<String, Vec<Version>>,
    deleted: BTreeMap<String, Deleted>,
    recovering: BTreeMap<String, (Vec<Version>, Instant)>,
    /// Names that cannot be written yet, until when and why.
    held: BTreeMap<String, (Instant, &'static str)>,
    /// Names with a write in progress.
    busy: BTreeSet<String>,
}

#[derive(Debug)]
struct Deleted {
    versions: Vec<Version>,
    at: i64,
    /// When the deletion is over.
    ready: Instant,
}

/// A change of a secret's version, except its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    enabled: Option<bool>,
    content_type: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

/// A position in a list.
pub(super) struct Page<'a> {
    /// The start of the next page's address.
    pub(super) address: String,
    pub(super) size: usize,
    /// The last row of the previous page.
    pub(super) after: Option<&'a str>,
}

impl Change {
    pub(super) fn parse(body: &Value) -> Result<Self, Failure> {
        let tags = match &body["tags"] {
            Value::Null => None,
            Value::Object(tags) => Some(parse_tags(tags)?),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(Failure::bad_parameter("Property tags has invalid value"));
            }
        };
        Ok(Self {
            enabled: body["attributes"]["enabled"].as_bool(),
            content_type: body["contentType"].as_str().map(str::to_owned),
            tags,
        })
    }
}

impl Secrets {
    /// Reserves a name for a write and returns the value to write.
    pub(super) fn begin(
        &mut self,
        name: &str,
        body: &Value,
        rules: &Rules,
    ) -> Result<String, Failure> {
        let Some(value) = body["value"].as_str() else {
            return Err(Failure::bad_parameter("Property value has invalid value"));
        };
        if value.len() > MAX_VALUE_BYTES {
            return Err(Failure::bad_parameter(
                "The request body or value is over the allowed limit of 25k",
            ));
        }
        self.settle();
        self.free(name)?;
        if rules.overlap_conflicts && self.busy.contains(name) {
            return Err(Failure::overlap(name));
        }
        self.busy.insert(name.to_owned());
        Ok(value.to_owned())
    }

    /// Whether a write to this secret is in progress.
    pub(super) fn is_busy(&self, name: &str) -> bool {
        self.busy.contains(name)
    }

    /// Adds a version with a given time stamp.
    pub(super) fn put(
        &mut self,
        host: &str,
        name: &str,
        value: String,
        change: Change,
        stamp: i64,
    ) -> Result<Value, Failure> {
        self.busy.remove(name);
        self.settle();
        self.free(name)?;
        let version = Version {
            id: random_hex(16),
            value,
            tags: change.tags.unwrap_or_default(),
            enabled: change.enabled.unwrap_or(true),
            created: stamp,
            updated: stamp,
            content_type: change.content_type,
            written: SystemTime::now(),
        };
        let mut shown = version.show(host, name);
        shown["value"] = json!(version.value);
        self.live.entry(name.to_owned()).or_default().push(version);
        Ok(shown)
    }

    /// Returns a version with its value; the newest one by default.
    pub(super) fn get(
        &mut self,
        host: &str,
        name: &str,
        id: Option<&str>,
    ) -> Result<Value, Failure> {
        self.settle();
        let version = self.find(name, id)?;
        if !version.enabled {
            return Err(Failure::disabled());
        }
        let mut shown = version.show(host, name);
        shown["value"] = json!(version.value);
        Ok(shown)
    }

    /// Changes a version, the newest one by default. The last writer wins, and a caller cannot
    /// detect that the newest version was another one before.
    pub(super) fn update(
        &mut self,
        host: &str,
        name: &str,
        id: Option<&str>,
        change: Change,
        rules: &Rules,
    ) -> Result<Value, Failure> {
        self.settle();
        if rules.overlap_conflicts && self.busy.contains(name) {
            return Err(Failure::overlap(name));
        }
        let id = self.find(name, id)?.id.clone();
        let versions = self.live.get_mut(name).into_iter().flatten();
        let version = versions.into_iter().find(|version| version.id == id);
        let version = version.expect("it was just found");
        version.updated = stamp();
        if let Some(enabled) = change.enabled {
            version.enabled = enabled;
        }
        if let Some(tags) = change.tags {
            version.tags = tags;
        }
        if let Some(content_type) = change.content_type {
            version.content_type = Some(content_type);
        }
        Ok(version.show(host, name))
    }

    /// Lists the versions of a secret without their values. A missing secret has none.
    pub(super) fn versions(&mut self, host: &str, name: &str, page: &Page, rules: &Rules) -> Value {
        self.settle();
        let versions = self.live.get(name).into_iter().flatten();
        let visible = versions.filter(|version| is_older(version.written, rules.list_lag));
        let rows = visible.map(|version| (version.id.clone(), version.show(host, name)));
        page.cut(rows.collect(), rules)
    }

    /// Lists the secrets, without their values.
    pub(super) fn list(&mut self, host: &str, page: &Page, rules: &Rules) -> Value {
        self.settle();
        let rows = self.live.iter().filter_map(|(name, versions)| {
            let mut shown = versions.last()?.show(host, name);
            shown["id"] = json!(format!("https://{host}/secrets/{name}"));
            Some((name.clone(), shown))
        });
        page.cut(rows.collect(), rules)
    }

    /// Deletes a secret with all its versions; it can be recovered.
    pub(super) fn delete(
        &mut self,
        host: &str,
        name: &str,
        rules: &Rules,
    ) -> Result<Value, Failure> {
        self.settle();
        self.find(name, None)?;
        if rules.overlap_conflicts && self.busy.contains(name) {
            return Err(Failure::overlap(name));
        }
        let deleted = Deleted {
            versions: self.live.remove(name).unwrap_or_default(),
            at: stamp(),
            ready: Instant::now() + rules.delete_delay,
        };
        let shown = deleted.show(host, name);
        self.deleted.insert(name.to_owned(), deleted);
        Ok(shown)
    }

    /// Returns a deleted secret once the deletion is complete.
    pub(super) fn get_deleted(&mut self, host: &str, name: &str) -> Result<Value, Failure> {
        let not_found = || {
            Failure::new(
                404,
                "SecretNotFound",
                format!("Deleted Secret not found: {name}"),
            )
        };
        let deleted = self
            .deleted
            .get(name)
            .filter(|deleted| deleted.ready <= Instant::now());
        let deleted = deleted.ok_or_else(not_found)?;
        if deleted.newest().is_some_and(|version| !version.enabled) {
            return Err(Failure::disabled());
        }
        Ok(deleted.show(host, name))
    }

    /// Starts to recover a deleted secret.
    pub(super) fn recover(
        &mut self,
        host: &str,
        name: &str,
        rules: &Rules,
    ) -> Result<Value, Failure> {
        let deleted = self.take_deleted(name)?;
        let shown = deleted.newest().map(|version| version.show(host, name));
        let now = Instant::now();
        self.recovering.insert(
            name.to_owned(),
            (deleted.versions, now + rules.recover_delay),
        );
        // The service refuses a write for a while even after the value can be read again.
        let until = now + 2 * rules.recover_delay;
        self.held
            .insert(name.to_owned(), (until, "ObjectIsBeingRecovered"));
        Ok(shown.unwrap_or_default())
    }

    /// Deletes a deleted secret for good.
    pub(super) fn purge(&mut self, name: &str, rules: &Rules) -> Result<(), Failure> {
        self.take_deleted(name)?;
        let until = Instant::now() + rules.delete_delay;
        self.held
            .insert(name.to_owned(), (until, "ObjectIsBeingDeleted"));
        Ok(())
    }

    /// Returns every version, oldest first, as seen in the vault itself.
    pub(super) fn all(&self, name: &str) -> Vec<Version> {
        self.live.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.live.keys().cloned().collect()
    }

    fn find(&self, name: &str, id: Option<&str>) -> Result<&Version, Failure> {
        let Some(versions) = self.live.get(name) else {
            return Err(Failure::not_found(name));
        };
        let found = match id {
            None => versions.last(),
            Some(id) => versions.iter().find(|version| version.id == id),
        };
        let named = || format!("{name}/{}", id.unwrap_or_default());
        found.ok_or_else(|| Failure::not_found(&named()))
    }

    fn take_deleted(&mut self, name: &str) -> Result<Deleted, Failure> {
        let Some(deleted) = self.deleted.get(name) else {
            return Err(Failure::not_found(name));
        };
        if deleted.ready > Instant::now() {
            let message = "Secret is currently being deleted.";
            return Err(Failure::new(409, "Conflict", message).with_inner("ObjectIsBeingDeleted"));
        }
        Ok(self.deleted.remove(name).expect("it was just there"))
    }

    /// Makes recovered secrets readable whose delay is over.
    fn settle(&mut self) {
        let now = Instant::now();
        let ready: Vec<_> = self
            .recovering
            .iter()
            .filter(|(_, (_, ready))| *ready <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let (versions, _) = self.recovering.remove(&name).expect("it was just there");
            self.live.insert(name, versions);
        }
    }

    /// Refuses a name that cannot be written because of a deletion.
    fn free(&self, name: &str) -> Result<(), Failure> {
        let now = Instant::now();
        let held = self.held.get(name).filter(|(until, _)| *until > now);
        let why = match self.deleted.get(name) {
            Some(deleted) if deleted.ready > now => "ObjectIsBeingDeleted",
            Some(_) => "ObjectIsDeletedButRecoverable",
            None => match held {
                Some((_, why)) => why,
                None => return Ok(()),
            },
        };
        let state = match why {
            "ObjectIsDeletedButRecoverable" => {
                "in a deleted but recoverable state, and its name cannot be reused; in this \
                 state, the secret can only be recovered or purged."
            }
            "ObjectIsBeingRecovered" => "being recovered and cannot be re-created; retry later.",
            _ => "being deleted and cannot be re-created; retry later.",
        };
        let message = format!("Secret {name} is currently {state}");
        Err(Failure::new(409, "Conflict", message).with_inner(why))
    }
}

impl Version {
    fn show(&self, host: &str, name: &str) -> Value {
        let mut shown = json!({
            "id": format!("https://{host}/secrets/{name}/{}", self.id),
            "attributes": {
                "enabled": self.enabled,
                "created": self.created,
                "updated": self.updated,
                "recoveryLevel": "Recoverable+Purgeable",
                "recoverableDays": RECOVERABLE_DAYS,
            },
        });
        if !self.tags.is_empty() {
            shown["tags"] = json!(self.tags);
        }
        if let Some(content_type) = &self.content_type {
            shown["contentType"] = json!(content_type);
        }
        shown
    }
}

impl Deleted {
    fn newest(&self) -> Option<&Version> {
        self.versions.last()
    }

    fn show(&self, host: &str, name: &str) -> Value {
        let mut shown = self
            .newest()
            .map(|it| it.show(host, name))
            .unwrap_or_default();
        shown["recoveryId"] = json!(format!("https://{host}/deletedsecrets/{name}"));
        shown["deletedDate"] = json!(self.at);
        shown["scheduledPurgeDate"] = json!(self.at + RECOVERABLE_DAYS * 86400);
        shown
    }
}

impl Page<'_> {
    /// Returns the next page of the rows, some of which are hidden from the caller: a page may be
    /// short or empty and still have a next one.
    fn cut(&self, mut rows: Vec<(String, Value)>, rules: &Rules) -> Value {
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut rows: Vec<_> = rows.into_iter().map(|(id, row)| (id, Some(row))).collect();
        if !rows.is_empty() {
            let (first, last) = (rules.hidden_rows / 2, rules.hidden_rows.div_ceil(2));
            // These names sort before and after every possible row.
            let before = (0..first).map(|number| (format!("!{number:04}"), None));
            let after = (0..last).map(|number| (format!("~{number:04}"), None));
            rows = before.chain(rows).chain(after).collect();
        }
        let begin = self.after.map_or(0, |after| {
            rows.partition_point(|(id, _)| id.as_str() <= after)
        });
        let end = (begin + self.size).min(rows.len());
        let next = (end < rows.len()).then(|| {
            let (last, _) = &rows[end - 1];
            format!(
                "{}&$skiptoken={}",
                self.address,
                super::encode(last.as_bytes())
            )
        });
        let shown: Vec<_> = rows[begin..end]
            .iter()
            .filter_map(|(_, row)| row.clone())
            .collect();
        json!({"value": shown, "nextLink": next})
    }
}

fn is_older(written: SystemTime, lag: Duration) -> bool {
    // After the clock was set back, the version is listed late.
    written.elapsed().is_ok_and(|age| age >= lag)
}

/// The service's clock rounds to whole seconds, up as well as down.
pub(super) fn stamp() -> i64 {
    let now = OffsetDateTime::now_utc() + Duration::from_millis(500);
    now.unix_timestamp()
}

fn parse_tags(tags: &Map<String, Value>) -> Result<BTreeMap<String, String>, Failure> {
    let tags = tags.iter().map(|(name, value)| {
        let value = value
            .as_str()
            .filter(|value| value.len() <= 256 && name.len() <= 512);
        Some((name.clone(), value?.to_owned()))
    });
    let tags: Option<BTreeMap<_, _>> = tags.collect();
    tags.filter(|tags| tags.len() <= MAX_TAGS)
        .ok_or_else(|| Failure::bad_parameter("The tags are not valid"))
}
