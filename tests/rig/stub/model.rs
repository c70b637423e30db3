//! The model's replies, as a stream of events, and its input.

use std::fmt::Write;

use serde_json::{Value, json};

/// The answer to the prompt.
pub(super) fn answer() -> String {
    stream(&json!({
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "content": [{"type": "output_text", "text": "OK"}],
    }))
}

/// A tool call that makes Codex run a shell command and report the output.
pub(super) fn call(line: &str) -> String {
    stream(&json!({
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": "exec_command",
        "arguments": json!({"cmd": line}).to_string(),
    }))
}

/// The outputs of the shell commands that the model requested in this conversation.
pub(super) fn printed_in(request: &Value) -> Vec<String> {
    let items = request["input"].as_array().into_iter().flatten();
    items
        .filter(|item| item["type"] == "function_call_output")
        .map(|item| {
            let output = &item["output"];
            output
                .as_str()
                .map_or_else(|| output.to_string(), str::to_owned)
        })
        .collect()
}

fn stream(item: &Value) -> String {
    let usage = json!({
        "input_tokens": 1,
        "input_tokens_details": null,
        "output_tokens": 1,
        "output_tokens_details": null,
        "total_tokens": 2,
    });
    let events = [
        json!({"type": "response.created", "response": {"id": "resp_1"}}),
        json!({"type": "response.output_item.done", "item": item}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "usage": usage}}),
    ];
    events.iter().fold(String::new(), |mut stream, event| {
        let name = event["type"].as_str().unwrap_or_default();
        write!(stream, "event: {name}\ndata: {event}\n\n").expect("a string takes it");
        stream
    })
}
