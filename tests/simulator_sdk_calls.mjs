// Every method of the npm SDK against every socket that is named; one JSON text to stdout.
// Usage: node simulator_sdk_calls.mjs DIR SOCKET..., where DIR holds node_modules.

import { createRequire } from 'node:module'

const [, , directory, ...sockets] = process.argv
const { DstackClient } = createRequire(directory + '/x.js')('@phala/dstack-sdk')

const hex = (value) => Buffer.from(value).toString('hex')
const shown = (value) => JSON.parse(JSON.stringify(value, (_, item) =>
  item instanceof Uint8Array ? hex(item) : typeof item === 'function' ? undefined : item))

async function outcome(call) {
  try {
    return { result: shown(await call()) }
  } catch (error) {
    return { error: String(error.message) }
  }
}

async function all(client) {
  const signed = await client.sign('ed25519', 'data').catch(() => null)
  const calls = {
    version: () => client.version(),
    info: () => client.info(),
    getKey: () => client.getKey('a', 'b'),
    getKeyEd25519: () => client.getKey('a', 'b', 'ed25519'),
    getTlsKey: () => client.getTlsKey({ subject: 'x', altNames: ['a.example'], usageRaTls: true }),
    getTlsKeyTimes: () => client.getTlsKey({ notBefore: 1700000000, notAfter: 1800000000, withAppInfo: true }),
    getQuote: () => client.getQuote('nonce'),
    attest: () => client.attest('nonce'),
    sign: () => client.sign('secp256k1', 'data'),
    verify: () => signed ? client.verify('ed25519', 'data', signed.signature, signed.public_key) : null,
    isReachable: () => client.isReachable(),
  }
  const found = {}
  for (const [name, call] of Object.entries(calls)) found[name] = await outcome(call)
  return found
}

const results = []
for (const socket of sockets) results.push(await all(new DstackClient(socket)))
console.log(JSON.stringify(results))
