import type { Call } from '../../aws/call.ts';
import type { AccessRequest } from '../../aws/service.ts';
import { lowerCaseAscii } from '../wildcard.ts';

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

/** The context of an access request: its own keys and the global ones that this system knows. */
export function requestContext(call: Call, request: AccessRequest, principalTags: PrincipalTags = {}): RequestContext {
  const values = new Map<string, readonly string[]>();
  const lists = new Set<string>();
  const set = (key: string, value: string | readonly string[] | undefined) => {
    if (value === undefined) return;
    const name = lowerCaseAscii(key);
    if (typeof value !== 'string') lists.add(name);
    values.set(name, typeof value === 'string' ? [value] : value);
  };
  const { principal } = call;
  const now = call.clock.now();
  set('aws:CurrentTime', new Date(now).toISOString().replace(/\.\d{3}Z$/, 'Z'));
  set('aws:EpochTime', String(Math.floor(now / 1000)));
  set('aws:PrincipalAccount', principal.account);
  set('aws:PrincipalArn', principalArnForConditions(call));
  set('aws:PrincipalType', principalTypes[principal.type]);
  set('aws:userid', principal.principalId);
  set('aws:username', principal.userName);
  set('aws:RequestedRegion', call.region);
  set('aws:ResourceAccount', request.resourceAccount);
  set('aws:UserAgent', call.userAgent);
  set('aws:SecureTransport', String(call.isSecure ?? false));
  set('aws:ViaAWSService', String(call.via !== undefined));
  set('aws:PrincipalIsAWSService', String(principal.type === 'AWSService'));
  if (call.via === undefined) set('aws:SourceIp', call.sourceIp);
  else {
    set('aws:CalledVia', [call.via]);
    set('aws:CalledViaFirst', call.via);
    set('aws:CalledViaLast', call.via);
    const [service] = call.via.split('.');
    set('kms:ViaService', `${service}.${call.region}.amazonaws.com`);
  }
  set('kms:CallerAccount', principal.account);
  if (principal.session) set('aws:TokenIssueTime', new Date(principal.session.createdAt).toISOString());
  for (const [key, value] of Object.entries(principalTags)) set(`aws:PrincipalTag/${key}`, value);
  const own = new Map<string, string>();
  for (const [key, value] of Object.entries(request.context ?? {})) {
    const name = lowerCaseAscii(key);
    const other = own.get(name);
    // Names that differ only in case (two keys of an encryption context) are one condition key with two values.
    if (typeof value === 'string' && other !== undefined && other !== value)
      values.set(name, [...values.get(name)!, value]);
    else set(key, value);
    if (typeof value === 'string') own.set(name, value);
  }
  return {
    get: (key) => values.get(lowerCaseAscii(key)),
    isMultivalued: (key) => lists.has(lowerCaseAscii(key)),
  };
}

const principalTypes = { Root: 'Account', IAMUser: 'User', AssumedRole: 'AssumedRole', AWSService: 'Service' } as const;

/** For a session of a role conditions see the role's ARN, not the session's. */
function principalArnForConditions({ principal }: Call): string {
  return principal.sessionIssuer?.arn ?? principal.arn;
}
