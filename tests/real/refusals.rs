//! Every way in which OpenBao refuses a store.

use std::{sync::LazyLock, thread, time::Duration};

use authferry_conformance::Refusal;
use authferry_core::ErrorKind::{
    self, Malformed, NotFound, PermissionDenied, Unauthenticated, Unavailable,
};
use authferry_vault::Settings;
use rig::{Admin, OpenBao};
use serde_json::json;

use crate::vault::{Server, net, open};

/// A sealed server with another certificate authority.
static SEALED: LazyLock<OpenBao> = LazyLock::new(|| {
    let server = OpenBao::raft();
    server.seal(0);
    server
});

/// Sets up each refusal in a mount of a server.
pub(crate) fn all(server: &Server, mount: &str, login: &[u8]) -> Vec<Refusal> {
    let place = rig::unique("refusing");
    let condition = (mount == "strict").then_some(0);
    let openbao = &server.openbao;
    openbao.put_by_hand(mount, &place, "auth_json", login, condition);
    let scene = Scene {
        server,
        admin: openbao.admin(),
        mount,
        place,
    };
    let refusals = [scene.by_token(), scene.by_place(), scene.by_server()];
    refusals.into_iter().flatten().collect()
}

/// A secret that holds the login, and to which access is refused.
struct Scene<'a> {
    server: &'a Server,
    admin: Admin,
    mount: &'a str,
    place: String,
}

impl Scene<'_> {
    fn by_token(&self) -> Vec<Refusal> {
        let admin = &self.admin;
        let ended = admin.token(&json!({"policies": ["rights"], "ttl": "1s"}));
        let used_up = admin.token(&json!({"policies": ["rights"], "num_uses": 1}));
        assert!(admin.is_valid_token(&used_up), "this is its only use");
        let nothing = admin.token(&json!({"policies": ["default"]}));
        let reader = self.reader();
        while admin.is_valid_token(&ended) {
            thread::sleep(Duration::from_millis(20));
        }
        let with = |name, token: String, kind| {
            self.refusal(name, &self.here(), kind, |it| it.token = Some(token.into()))
        };
        vec![
            with(
                "an unknown token",
                "made-up-token".to_owned(),
                Unauthenticated,
            ),
            with("an expired token", ended, Unauthenticated),
            with("a used-up token", used_up, Unauthenticated),
            self.refusal("no token", &self.here(), Unauthenticated, |it| {
                it.token = None;
            }),
            with("a token without rights", nothing, PermissionDenied),
            Refusal {
                on_read: None,
                ..with("a token that may read", reader, PermissionDenied)
            },
        ]
    }

    /// A token that may only read the secret and look itself up.
    fn reader(&self) -> String {
        let secret = format!("{}/data/{}", self.mount, self.place);
        let rights = [secret.as_str(), "auth/token/lookup-self"]
            .map(|path| format!("path \"{path}\" {{ capabilities = [\"read\"] }}\n"));
        let name = rig::unique("reader");
        self.admin.policy(&name, &rights.concat());
        self.admin
            .token(&json!({"policies": [name], "no_default_policy": true}))
    }

    fn by_place(&self) -> Vec<Refusal> {
        let Self { admin, place, .. } = self;
        let old = rig::unique("old");
        admin.mount_kv(&old, 1);
        admin.write(&format!("{old}/{place}"), &json!({"auth_json": "made-up"}));
        let odd = rig::unique("odd");
        let not_text = json!({"data": {"auth_json": {"tokens": {}}}, "options": {"cas": 0}});
        admin.write(&format!("{}/data/{odd}", self.mount), &not_text);

        let root = self.server.openbao.root_token();
        let as_root = |settings: &mut Settings| settings.token = Some(root.into());
        let [old, none, odd] = [
            format!("{old}/{place}"),
            format!("none/{place}"),
            format!("{}/{odd}", self.mount),
        ];
        vec![
            self.refusal("a missing mount", &none, NotFound, as_root),
            self.refusal("a missing mount, with few rights", &none, NotFound, |_| {}),
            self.refusal("a key-value engine of version 1", &old, NotFound, as_root),
            self.refusal("an unknown namespace", &self.here(), NotFound, |it| {
                it.namespace = Some("nowhere".to_owned());
            }),
            self.refusal("a field that is not text", &odd, Malformed, |_| {}),
        ]
    }

    fn by_server(&self) -> Vec<Refusal> {
        let here = self.here();
        let mut refusals = vec![
            self.refusal("a closed port", &here, Unavailable, |it| {
                it.servers = Some("http://127.0.0.1:1".to_owned());
            }),
            self.refusal("a sealed server", &here, Unavailable, |it| {
                it.servers = Some(SEALED.address());
                it.net = net(SEALED.authority());
            }),
        ];
        if self.server.openbao.authority().is_some() {
            refusals.push(self.refusal(
                "a server of another authority",
                &here,
                Unavailable,
                |it| {
                    it.net = net(SEALED.authority());
                },
            ));
        }
        refusals
    }

    fn here(&self) -> String {
        format!("{}/{}", self.mount, self.place)
    }

    fn refusal(
        &self,
        name: &'static str,
        place: &str,
        kind: ErrorKind,
        change: impl FnOnce(&mut Settings),
    ) -> Refusal {
        let mut settings = self.server.settings();
        change(&mut settings);
        let (_, path) = place.split_once('/').expect("a mount and a path");
        Refusal {
            name,
            place: path.to_owned(),
            store: open(place, settings),
            on_read: Some(kind),
            on_swap: kind,
        }
    }
}
