// What `main` and `post` have in common: they find the program, see that it is the one that
// was meant, and start it. Everything else is the program's affair.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { appendFileSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join, resolve } from 'node:path'

export class Refused extends Error {}

export function input (name) {
  return (process.env[`INPUT_${name.toUpperCase()}`] ?? '').trim()
}

// A misspelt word must not count as the other one.
export function truth (name) {
  const said = input(name)
  if (said === 'true') return true
  if (said === 'false' || said === '') return false
  throw new Refused(`the input \`${name}\` is to be true or false`)
}

// The home of Codex. Each job gets a new one, unless it names another: two runners of one user
// share `~/.codex`. An earlier step of this action has named it to the steps that follow.
export function home () {
  const named = input('codex-home') || process.env.CODEX_HOME
  const own = join(process.env.RUNNER_TEMP, 'authferry-codex')
  const home = named ? resolve(named) : own
  if (!input('config')) return home
  if (home !== own) throw new Refused(`\`config\` is for the home that the action makes: put it into ${home}`)
  mkdirSync(home, { recursive: true, mode: 0o700 })
  copyFileSync(resolve(input('config')), join(home, 'config.toml'))
  return home
}

// What every command of the program is told. `post` gets the same inputs as `main`.
export function common (home) {
  const words = ['--github', '--store', input('store')]
  if (home) words.push('--codex-home', home)
  if (input('rescue-dir')) words.push('--rescue-dir', resolve(input('rescue-dir')))
  return words
}

// The environment of a step with `run`. What only actions get stays here: inputs and state,
// and the keys to the cache and the artifacts of the job, which a command has no business with.
export function environment () {
  const ours = /^(INPUT_|STATE_|ACTIONS_(RUNTIME|CACHE|RESULTS)_|GITHUB_STATE$)/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)))
}

// The runner tells this process alone that the job is cancelled, and kills it some seconds
// later: the program has to hear of it, and this process has to stay as long as it does.
export function start (program, words, options = {}) {
  return new Promise(done => {
    const child = spawn(program, words, { stdio: 'inherit', env: environment(), ...options })
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
      process.on(signal, () => child.kill(signal))
    }
    child.on('error', error => {
      complain(`authferry cannot be started: ${error.message}`)
      done(126)
    })
    child.on('close', (code, signal) => done(code ?? 128 + constants.signals[signal]))
  })
}

export function digest (file) {
  return createHash('sha256').update(readFileSync(file)).digest('hex')
}

// Finds the program that the inputs name, and returns it with its digest.
export async function find () {
  const wanted = input('sha256').toLowerCase()
  if (input('path')) {
    const program = resolve(input('path'))
    return checked(program, digest(program), wanted)
  }
  const version = input('version')
  const target = TARGETS[`${process.platform} ${process.arch}`]
  if (!target) throw new Refused(`there is no program for ${process.platform} on ${process.arch}: build it, and name it as \`path\``)
  const known = JSON.parse(readFileSync(new URL('releases.json', import.meta.url), 'utf8'))
  const sha256 = wanted || known[version]?.[target]
  if (!sha256) throw new Refused(`no digest of authferry ${version} for ${target} is known here: give it as \`sha256\`, or name a program as \`path\``)
  const { GITHUB_SERVER_URL: server, GITHUB_ACTION_REPOSITORY: repository, RUNNER_TEMP: temp } = process.env
  const address = `${server}/${repository}/releases/download/v${version}/authferry-${target}`
  const bytes = await download(address)
  const program = join(mkdtempSync(join(temp, 'authferry-')), 'authferry')
  // Not even written where it could be started before it is known to be the right one.
  const found = checked(program, createHash('sha256').update(bytes).digest('hex'), sha256)
  writeFileSync(program, bytes, { mode: 0o700, flag: 'wx' })
  return found
}

export function complain (message) {
  process.stdout.write(`::error title=authferry::${escaped(message)}\n`)
}

// Appends to one of the runner's files.
export function tell (file, name, value) {
  appendFileSync(process.env[file], `${name}=${value}\n`)
}

// As the releases name their programs.
const TARGETS = {
  'linux x64': 'x86_64-unknown-linux-musl',
  'linux arm64': 'aarch64-unknown-linux-musl',
  'darwin x64': 'x86_64-apple-darwin',
  'darwin arm64': 'aarch64-apple-darwin'
}

function checked (program, found, wanted) {
  if (wanted && found !== wanted) throw new Refused(`${program} is another program than was meant: its SHA-256 is ${found}, not ${wanted}`)
  return { program, sha256: found }
}

async function download (address) {
  let why
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const answer = await fetch(address)
      if (answer.ok) return Buffer.from(await answer.arrayBuffer())
      why = `it says ${answer.status}`
      if (answer.status < 500) break
    } catch (error) {
      why = error.cause?.message ?? error.message
    }
  }
  throw new Refused(`cannot download ${address}: ${why}; put the program on the runner, and name it as \`path\``)
}

function escaped (text) {
  return text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
}
