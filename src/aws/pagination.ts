/** `NextToken` and `MaxResults`: pages that go on after the last item shown, whatever comes or goes meanwhile. */
import { AwsError } from './errors.ts';

/**
 * The sequence number after which a page starts; 0 without a token.
 * @throws {AwsError} InvalidNextToken when the token isn't one of ours
 */
export function pageStart(nextToken: string | undefined): number {
  if (!nextToken) return 0;
  const match = /^v1:(\d{1,15})$/.exec(Buffer.from(nextToken, 'base64url').toString('latin1'));
  if (!match) throw new AwsError('InvalidNextToken', 'The specified NextToken is not valid.');
  return Number(match[1]);
}

/** The token for the page after the item with sequence number `last`. */
export function pageToken(last: number): string {
  return Buffer.from(`v1:${last}`, 'latin1').toString('base64url');
}

/**
 * How many items a page has: `maxResults` within the operation's bounds. More than the maximum gives the maximum, as EC2
 * does; absent gives the maximum too, so that no answer grows without bound.
 * @throws {AwsError} InvalidParameterValue below the minimum
 */
export function pageSize(maxResults: number | undefined, minimum: number, maximum: number): number {
  if (maxResults === undefined || maxResults === null) return maximum;
  if (maxResults < minimum)
    throw new AwsError(
      'InvalidParameterValue',
      `Value ( ${maxResults} ) for parameter maxResults is invalid. Expecting a value greater than or equal to ${minimum}.`,
    );
  return Math.min(maxResults, maximum);
}
