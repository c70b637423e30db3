//! Every way in which OpenBao turns a store away.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use authferry_conformance::Refusal;
use authferry_core::ErrorKind::{
    self, Malformed, NotFound, PermissionDenied, Unauthenticated, Unavailable,
};
use authferry_vault::Settings;
use rig::OpenBao;
use serde_json::json;

use crate::vault::{Server, net, open};

/// A server of another authority, which keeps everything to itself.
static SEALED: LazyLock<OpenBao> = LazyLock::new(|| {
    let server = OpenBao::raft();
    server.seal(0);
    server
});

/// Makes each of them, in a mount of a server.
pub(crate) fn all(server: &Server, mount: &str, login: &[u8]) -> Vec<Refusal> {
    // More than one case asks for them.
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let number = ASKED.fetch_add(1, Ordering::Relaxed);
    let (openbao, admin) = (&server.openbao, server.openbao.admin());
    let place = format!("refusing-{number}");
    let here = format!("{mount}/{place}");
    let condition = (mount == "strict").then_some(0);
    openbao.put_by_hand(mount, &place, "auth_json", login, condition);
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = server.settings();
        change(&mut settings);
        settings
    };
    let with_token = |token: String| with(&|it| it.token = Some(token.clone().into()));
    let allowed = |rights: &str| {
        let name = format!("rights-{number}");
        admin.policy(&name, rights);
        admin.token(&json!({"policies": [name], "no_default_policy": true}))
    };

    let ended = admin.token(&json!({"policies": ["rights"], "ttl": "1s"}));
    let used_up = admin.token(&json!({"policies": ["rights"], "num_uses": 1}));
    assert!(admin.knows(&used_up), "and that was its use");
    let nothing = admin.token(&json!({"policies": ["default"]}));
    let may_read = |path: &str| format!("path \"{path}\" {{ capabilities = [\"read\"] }}\n");
    let reader = [
        format!("{mount}/data/{place}"),
        "auth/token/lookup-self".to_owned(),
    ];
    let reader = allowed(&reader.map(|path| may_read(&path)).concat());
    let root = openbao.root_token().to_owned();

    let old = format!("old-{number}");
    admin.mount_kv(&old, 1);
    admin.write(&format!("{old}/{place}"), &json!({"auth_json": "made-up"}));
    let odd = format!("odd-{number}");
    let no_text = json!({"data": {"auth_json": {"tokens": {}}}, "options": {"cas": 0}});
    admin.write(&format!("{mount}/data/{odd}"), &no_text);
    let nobody = with(&|it| it.servers = Some("http://127.0.0.1:1".to_owned()));
    while admin.knows(&ended) {
        thread::sleep(Duration::from_millis(20));
    }

    let mut refusals = vec![
        way(
            "a token of nobody's",
            &here,
            with_token("made-up-token".into()),
            Unauthenticated,
        ),
        way(
            "a token that has ended",
            &here,
            with_token(ended),
            Unauthenticated,
        ),
        way(
            "a token that is used up",
            &here,
            with_token(used_up),
            Unauthenticated,
        ),
        way(
            "no token",
            &here,
            with(&|it| it.token = None),
            Unauthenticated,
        ),
        way(
            "a token without rights",
            &here,
            with_token(nothing),
            PermissionDenied,
        ),
        Refusal {
            on_read: None,
            ..way(
                "a token that may read",
                &here,
                with_token(reader),
                PermissionDenied,
            )
        },
        way(
            "a missing mount",
            &format!("none/{place}"),
            with_token(root.clone()),
            NotFound,
        ),
        way(
            "a missing mount and few rights",
            &format!("none/{place}"),
            server.settings(),
            NotFound,
        ),
        way(
            "a store of version 1",
            &format!("{old}/{place}"),
            with_token(root),
            NotFound,
        ),
        way(
            "an unknown namespace",
            &here,
            with(&|it| it.namespace = Some("nowhere".to_owned())),
            NotFound,
        ),
        way(
            "a field that is no text",
            &format!("{mount}/{odd}"),
            server.settings(),
            Malformed,
        ),
        way("a port that nobody listens on", &here, nobody, Unavailable),
        way(
            "a server that is sealed",
            &here,
            with(&|it| {
                it.servers = Some(SEALED.address());
                it.net = net(SEALED.authority());
            }),
            Unavailable,
        ),
    ];
    if openbao.authority().is_some() {
        refusals.push(way(
            "a server that another authority vouches for",
            &here,
            with(&|it| it.net = net(SEALED.authority())),
            Unavailable,
        ));
    }
    refusals
}

fn way(name: &'static str, place: &str, settings: Settings, kind: ErrorKind) -> Refusal {
    let (_, path) = place.split_once('/').expect("a mount and a path");
    Refusal {
        name,
        place: path.to_owned(),
        store: open(place, settings),
        on_read: Some(kind),
        on_swap: kind,
    }
}
