/**
 * Node.js's HTTP modules for our own clients, without what nobody here uses of them: an `import` of `node:http` evaluates
 * all that it exports, and with its `WebSocket` comes all of undici, 6 MiB in each process. TLS takes more, and is loaded
 * for servers that have it.
 */
export const http = process.getBuiltinModule('node:http');

export function https(): typeof import('node:https') {
  return process.getBuiltinModule('node:https');
}
