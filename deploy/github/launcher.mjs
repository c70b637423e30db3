// Shared by `main` and `post`: find the program, check its digest, start it. The program does
// everything else.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { appendFileSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join, resolve } from 'node:path'

export class Refused extends Error {}

export function input (name) {
  return (process.env[`INPUT_${name.toUpperCase()}`] ?? '').trim()
}

// A misspelt value is refused: it must not count as false.
export function truth (name) {
  const said = input(name)
  if (said === 'true') return true
  if (said === 'false' || said === '') return false
  throw new Refused(`the input \`${name}\` must be true or false`)
}

// The home of Codex. Each job gets a new one unless it names one: two runners of one user share
// `~/.codex`. An earlier step of this action has set CODEX_HOME for the following steps.
export function home () {
  const named = input('codex-home') || process.env.CODEX_HOME
  const own = join(process.env.RUNNER_TEMP, 'authferry-codex')
  const home = named ? resolve(named) : own
  if (!input('config')) return home
  if (home !== own) throw new Refused(`\`config\` works only with the home that the action makes: put the file into ${home}`)
  mkdirSync(home, { recursive: true, mode: 0o700 })
  copyFileSync(resolve(input('config')), join(home, 'config.toml'))
  return home
}

// The options of every command of the program. `post` gets the same inputs as `main`.
export function common (home) {
  const words = ['--github', '--store', input('store')]
  if (home) words.push('--codex-home', home)
  if (input('rescue-dir')) words.push('--rescue-dir', resolve(input('rescue-dir')))
  return words
}

// The environment of a step with `run`, without what only actions get: inputs, state, and the
// credentials for the job's cache and artifacts. The command does not need them.
export function environment () {
  const ours = /^(INPUT_|STATE_|ACTIONS_(RUNTIME|CACHE|RESULTS)_|GITHUB_STATE$)/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)))
}

// On cancellation the runner signals only this process, and kills it some seconds later. So this
// process passes the signal on to the program, and waits for the program.
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

// Finds the program that the inputs name. Returns it with its digest.
export async function find () {
  const wanted = input('sha256').toLowerCase()
  if (input('path')) {
    const program = resolve(input('path'))
    return checked(program, digest(program), wanted)
  }
  const version = input('version')
  const target = TARGETS[`${process.platform} ${process.arch}`]
  if (!target) throw new Refused(`no release has a program for ${process.platform} on ${process.arch}: build it, and name it with \`path\``)
  const known = JSON.parse(readFileSync(new URL('releases.json', import.meta.url), 'utf8'))
  const sha256 = wanted || known[version]?.[target]
  if (!sha256) throw new Refused(`the action has no digest of authferry ${version} for ${target}: give it as \`sha256\`, or name a program with \`path\``)
  const { GITHUB_SERVER_URL: server, GITHUB_ACTION_REPOSITORY: repository, RUNNER_TEMP: temp } = process.env
  const address = `${server}/${repository}/releases/download/v${version}/authferry-${target}`
  const bytes = await download(address)
  const program = join(mkdtempSync(join(temp, 'authferry-')), 'authferry')
  // Check the digest before the file is written as an executable.
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

// The names of the programs in a release.
const TARGETS = {
  'linux x64': 'x86_64-unknown-linux-musl',
  'linux arm64': 'aarch64-unknown-linux-musl',
  'darwin x64': 'x86_64-apple-darwin',
  'darwin arm64': 'aarch64-apple-darwin'
}

function checked (program, found, wanted) {
  if (wanted && found !== wanted) throw new Refused(`${program} does not match its digest: its SHA-256 is ${found}, not ${wanted}`)
  return { program, sha256: found }
}

async function download (address) {
  let why
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const answer = await fetch(address)
      if (answer.ok) return Buffer.from(await answer.arrayBuffer())
      why = `the server answers ${answer.status}`
      if (answer.status < 500) break
    } catch (error) {
      why = error.cause?.message ?? error.message
    }
  }
  throw new Refused(`cannot download ${address}: ${why}; put the program on the runner, and name it with \`path\``)
}

function escaped (text) {
  return text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
}
