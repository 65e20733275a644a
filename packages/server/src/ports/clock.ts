/** Wall time in ms for records, injected so that leases can be tested. */
export type Clock = () => number;
