import type { Call } from '../../aws/call.ts';
import type { AccessRequest } from '../../aws/service.ts';
import { lowerCaseAscii } from '../../aws/wildcard.ts';

/**
 * The condition keys of one request and their values. Names match without regard to case; a key has one value or several.
 * Source: IAM user guide, "AWS global condition context keys".
 */
export interface RequestContext {
  /** The values of a key (any case); undefined when the request doesn't have it. */
  get(key: string): readonly string[] | undefined;
  /** Whether the key is one that can have several values (`aws:TagKeys`), however many this request has. */
  isMultivalued(key: string): boolean;
}

/** Tags of the principal and of its session, for `aws:PrincipalTag/…`. */
export type PrincipalTags = Readonly<Record<string, string>>;

/**
 * The context of an access request: its own keys and the global ones that this system knows. Each value is made when it is
 * first asked for, because few policies ask for more than a few.
 */
export function requestContext(call: Call, request: AccessRequest, principalTags: PrincipalTags = {}): RequestContext {
  const own = ownValues(request);
  const known = new Map<string, Value | undefined>();
  const find = (key: string) => {
    const name = lowerCaseAscii(key);
    let value = own.get(name) ?? known.get(name);
    if (value === undefined && !known.has(name)) {
      value = globalKeys.get(name)?.(call, request) ?? tagOf(principalTags, name);
      known.set(name, value);
    }
    return value;
  };
  return {
    get(key) {
      const value = find(key);
      if (value instanceof Merged) return value.values;
      return typeof value === 'string' ? [value] : value;
    },
    isMultivalued: (key) => Array.isArray(find(key)),
  };
}

/** One value, or those of a key that can have several. */
type Value = string | readonly string[] | Merged;

/** The values of names that differ only in case (two keys of an encryption context): one condition key with two values. */
class Merged {
  readonly values: readonly string[];
  constructor(values: readonly string[]) {
    this.values = values;
  }
}

/** The request's own keys, by their names in lower case. */
function ownValues(request: AccessRequest): ReadonlyMap<string, Value> {
  const own = new Map<string, Value>();
  for (const [key, value] of Object.entries(request.context ?? {})) {
    const name = lowerCaseAscii(key);
    const other = own.get(name);
    if (typeof value === 'string' && other instanceof Merged) own.set(name, new Merged([...other.values, value]));
    else if (typeof value === 'string' && typeof other === 'string' && other !== value)
      own.set(name, new Merged([other, value]));
    else own.set(name, value);
  }
  return own;
}

const tagPrefix = 'aws:principaltag/';

function tagOf(tags: PrincipalTags, name: string): string | undefined {
  if (!name.startsWith(tagPrefix)) return undefined;
  // Of names that differ only in case the last one counts.
  return Object.entries(tags).findLast(([key]) => lowerCaseAscii(key) === name.slice(tagPrefix.length))?.[1];
}

/** To the second, as AWS has it. */
function instant(time: number): string {
  return new Date(time).toISOString().replace(/\.\d{3}Z$/, 'Z');
}

type GlobalKey = (call: Call, request: AccessRequest) => string | readonly string[] | undefined;

/** By their names in lower case. */
const globalKeys: ReadonlyMap<string, GlobalKey> = new Map<string, GlobalKey>([
  ['aws:currenttime', ({ clock }) => instant(clock.now())],
  ['aws:epochtime', ({ clock }) => String(Math.floor(clock.now() / 1000))],
  ['aws:principalaccount', ({ principal }) => principal.account],
  // For a session of a role conditions see the role's ARN, not the session's.
  ['aws:principalarn', ({ principal }) => principal.sessionIssuer?.arn ?? principal.arn],
  ['aws:principaltype', ({ principal }) => principalTypes[principal.type]],
  ['aws:userid', ({ principal }) => principal.principalId],
  ['aws:username', ({ principal }) => principal.userName],
  ['aws:requestedregion', ({ region }) => region],
  ['aws:resourceaccount', (_call, request) => request.resourceAccount],
  ['aws:useragent', ({ userAgent }) => userAgent],
  ['aws:securetransport', ({ isSecure }) => String(isSecure ?? false)],
  ['aws:viaawsservice', ({ via }) => String(via !== undefined)],
  ['aws:principalisawsservice', ({ principal }) => String(principal.type === 'AWSService')],
  ['aws:sourceip', ({ via, sourceIp }) => (via === undefined ? sourceIp : undefined)],
  ['aws:calledvia', ({ via }) => via && [via]],
  ['aws:calledviafirst', ({ via }) => via],
  ['aws:calledvialast', ({ via }) => via],
  ['kms:viaservice', ({ via, region }) => via && `${via.split('.')[0]}.${region}.amazonaws.com`],
  ['kms:calleraccount', ({ principal }) => principal.account],
  ['aws:sourceidentity', ({ principal: { session } }) => session?.sourceIdentity],
  ['aws:tokenissuetime', ({ principal: { session } }) => session && instant(session.createdAt)],
  // Only temporary credentials can be had with a second factor; nobody has one here.
  ['aws:multifactorauthpresent', ({ principal: { session } }) => session && 'false'],
]);

const principalTypes = { Root: 'Account', IAMUser: 'User', AssumedRole: 'AssumedRole', AWSService: 'Service' } as const;
