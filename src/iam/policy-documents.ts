/** Policy documents as requests bring them and answers show them. */
import { text } from '../aws/validate.ts';

export const policyText = text({ min: 1, max: 131_072, pattern: /[\u0009\u000A\u000D\u0020-\u00FF]+/ });

/** Its length in characters; IAM doesn't count white space. */
export const sizeOf = (document: string) => document.replace(/\s/g, '').length;

/** Documents in answers are URL-encoded (RFC 3986). Source: IAM API reference, GetPolicyVersion. */
export function encodeDocument(document: string): string {
  return encodeURIComponent(document).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
