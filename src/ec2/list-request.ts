/** What all Describe operations ask of a request: ids or a page, and filters. */
import type { Filter as FilterInput } from '@aws-sdk/client-ec2';
import { AwsError } from '../aws/errors.ts';
import { type Filter, parseFilters } from '../aws/filters.ts';
import { pageSize, pageStart } from '../aws/pagination.ts';
import { invalidCombination, stopIfDryRun } from './errors.ts';

const idsMax = 1000;
const pageMin = 5;
export const pageMax = 1000;

export interface ListInput {
  readonly Filters?: FilterInput[] | undefined;
  readonly MaxResults?: number | undefined;
  readonly NextToken?: string | undefined;
  readonly DryRun?: boolean | undefined;
}

export interface ListRequest {
  /** Without repetitions; none when all are asked for. */
  readonly ids: readonly string[];
  readonly filters: readonly Filter[];
  /** The sequence number after which the page starts. */
  readonly start: number;
  /** How many items the answer has at most. */
  readonly size: number;
}

/**
 * Reads a request to describe resources.
 * @param named the ids that the request names, how one is checked, what they are (`volumes`) and what the API calls the
 * parameter
 * @throws {AwsError} for a wrong id, filter, size or token; when DryRun is set
 */
export function listRequest(
  input: ListInput,
  named: { ids: readonly string[] | undefined; check: (id: string) => string; what: string; parameter: string },
  filterNames: ReadonlySet<string>,
): ListRequest {
  const ids = [...new Set((named.ids ?? []).map((id) => named.check(id)))];
  if (ids.length > idsMax)
    throw new AwsError('RequestLimitExceeded', `One request can name ${idsMax} ${named.what}, not ${ids.length}.`);
  if (ids.length > 0 && input.MaxResults !== undefined)
    throw invalidCombination(`The parameter ${named.parameter} cannot be used with the parameter maxResults`);
  const filters = parseFilters(input.Filters, filterNames);
  const start = pageStart(input.NextToken);
  const size = ids.length > 0 ? ids.length : pageSize(input.MaxResults, pageMin, pageMax);
  stopIfDryRun(input);
  return { ids, filters, start, size };
}
